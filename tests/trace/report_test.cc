#include "trace/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "sample_timeline.h"
#include "trace/drawing.h"
#include "trace/render.h"
#include "xml_check.h"

namespace farskip {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

/// HTML's void elements closed, so that the XML check can read the page.
std::string as_xml(std::string html) {
  html.erase(0, html.find('\n') + 1);  // the doctype
  for (size_t at = 0; (at = html.find("<meta ", at)) != html.npos;) {
    at = html.find('>', at);
    html.insert(at, "/");
  }
  return html;
}

TEST(Report, IsWellFormedSelfContainedAndEscaped) {
  HtmlReport report("Loss < 2 & falling", "it's \"fine\"");
  report.add_heading("<script>alert(1)</script>");
  report.add_paragraph("a < b");
  report.add_figures({{"98 %", "hidden & measured"}});
  report.add_table({{"run", "loss"}, {{"<standard>", "2.2"}, {}, {"farskip", "2.3"}}, "note <1>"});
  report.add_line_chart({"t <", "x &", "y >", {{"s \"1\"", {{0, 1}, {1, 2}}}, {"s2", {}}}});
  report.add_heatmap({"h <", "layer", "expert", {"<0>"}, {"0", "1"}, {{1, NAN}}, "x", 1.0});
  report.add_bar_chart(overlap_bars("bars", summarize(measure_overlap(sample_timeline("", 3, 2)))));
  report.add_timeline(render_svg({sample_timeline("planned", 2)}), "caption &");
  report.add_details("schedule", "a\n<b");
  EXPECT_THAT(report.html(), Not(HasSubstr("http-equiv")));
  report.reload_after(4.6);
  const std::string html = report.html();
  EXPECT_EQ(xml_error(as_xml(html)), "");
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("src=")));
  EXPECT_THAT(html, Not(HasSubstr("@import")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(html, HasSubstr("<meta http-equiv=\"refresh\" content=\"5\">"));
  EXPECT_THAT(html, HasSubstr("<tr class=\"group\"><td>&lt;standard&gt;</td><td class=\"number\">2.2</td></tr>"));
  EXPECT_THAT(html, HasSubstr("window too short"));
}

TEST(Report, RefusesWhatDoesNotFit) {
  HtmlReport report("r");
  EXPECT_THROW(report.add_heading("x", 1), Error);
  EXPECT_THROW(report.add_table({{"a", "b"}, {{"only one"}}, ""}), Error);
  EXPECT_THROW(report.add_heatmap({"h", "", "", {"0"}, {"0"}, {}, "", {}}), Error);
  EXPECT_THROW(report.add_heatmap({"h", "", "", {"0"}, {"0"}, {{1, 2}}, "", {}}), Error);
  EXPECT_THROW(report.add_bar_chart({"b", "ms", {{"x", -1, 0, ""}}}), Error);
  EXPECT_EQ(xml_error(as_xml(report.html())), "");
}

TEST(LineChart, BreaksAtMissingValuesAndLeavesOutWhatALogarithmCannotShow) {
  const LineChart broken{"", "x", "y", {{"s", {{0, 1}, {1, 2}, {2, NAN}, {3, 2}, {4, 3}}}}};
  const auto paths = elements(line_chart_svg(broken), "path");
  ASSERT_EQ(paths.size(), 1u);
  EXPECT_EQ(std::count(paths[0].at("d").begin(), paths[0].at("d").end(), 'M'), 2);

  LineChart powers{"", "x", "y", {{"s", {{0, 1}, {1, -1}, {10, 10}, {100, 100}}}}, true, true};
  const std::string svg = line_chart_svg(powers);
  EXPECT_EQ(elements(svg, "circle").size(), 2u);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(LineChart, ThinningKeepsSpikes) {
  LineChart chart{"", "x", "y", {{"s", {}}}};
  for (int i = 0; i < 100000; ++i) chart.series[0].points.push_back({i, i == 77777 ? 50 : 1});
  const std::string svg = line_chart_svg(chart);
  EXPECT_LT(svg.size(), 100000u);
  const std::string d = elements(svg, "path")[0].at("d");
  double highest = 1e9;  // smallest y in pixels
  for (size_t at = 0; (at = d.find_first_of("ML", at)) != d.npos; ++at) {
    highest = std::min(highest, std::stod(d.substr(d.find(' ', at) + 1)));
  }
  EXPECT_LT(highest, 60);
}

TEST(LineChart, DegenerateRangesStayFinite) {
  for (const Series& series : {Series{"none", {}}, Series{"one", {{5, 5}}}, Series{"flat", {{0, 0}, {1, 0}}}}) {
    for (bool log : {false, true}) {
      const std::string svg = line_chart_svg({"t", "x", "y", {series}, log, log});
      EXPECT_EQ(xml_error(svg), "") << series.name;
      EXPECT_THAT(svg, Not(HasSubstr("nan"))) << series.name;
      EXPECT_THAT(svg, Not(HasSubstr("inf"))) << series.name;
    }
  }
}

TEST(Heatmap, ColoursAroundTheCentre) {
  const auto cells = [](const Heatmap& heatmap) {
    std::vector<std::pair<std::string, std::string>> found;
    for (const auto& rect : elements(heatmap_svg(heatmap), "rect")) {
      if (rect.at("class").starts_with("cell")) found.emplace_back(rect.at("class"), rect.at("fill-opacity"));
    }
    return found;
  };
  EXPECT_THAT(cells({"", "l", "e", {"0"}, {"0", "1", "2"}, {{0.5, 1, 3}}, "", 1.0}),
              ElementsAre(std::pair("cell low", "0.25"), std::pair("cell high", "0"), std::pair("cell high", "1")));
  EXPECT_THAT(cells({"", "l", "e", {"0"}, {"0", "1"}, {{2, 4}}, "", {}}),
              ElementsAre(std::pair("cell high", "0.5"), std::pair("cell high", "1")));
}

TEST(Table, TextIsAligned) {
  EXPECT_EQ(render_text(Table{{"name", "µs"}, {{"a", "5"}, {}, {"long", "12.5"}}, "Note."}),
            "name    µs\n----------\na        5\n----------\nlong  12.5\nNote.\n");
  EXPECT_EQ(render_text(Table{{"only", "head"}, {}, ""}), "only  head\n----------\n");
}

TEST(Drawing, TimesAndTicks) {
  EXPECT_EQ(format_us(0), "0 µs");
  EXPECT_EQ(format_us(3.14159), "3.14 µs");
  EXPECT_EQ(format_us(0.0123), "0.012 µs");
  EXPECT_EQ(format_us(999.4), "999 µs");
  EXPECT_EQ(format_us(999.9, "us"), "1.00 ms");
  EXPECT_EQ(format_us(12345), "12.3 ms");
  EXPECT_EQ(format_us(2.5e6), "2.50 s");
  EXPECT_EQ(format_us(-1500), "-1.50 ms");
  EXPECT_EQ(round_step(97, 10), 10);
  EXPECT_EQ(round_step(101, 10), 20);
  EXPECT_THAT(round_ticks(-1, 1, 4), ElementsAre(-1, -0.5, 0, 0.5, 1));
  EXPECT_THAT(time_ticks(0, 1500, 3).labels, ElementsAre("0", "0.5 ms", "1.0 ms", "1.5 ms"));
}

}  // namespace
}  // namespace farskip
