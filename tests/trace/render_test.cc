#include "trace/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "sample_timeline.h"
#include "xml_check.h"

namespace farskip {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

Span span(const char* lane, const char* stage, const char* pass, SpanKind kind, double begin, double end) {
  return {0, lane, std::string("mb0.l3.") + pass + "." + stage, stage, pass, kind, begin, end};
}

/// Times are chosen so that one of 40 letters is 10 us.
Timeline small_timeline() {
  using enum SpanKind;
  return {
      "small",
      {span("compute", "qkv", "fwd", compute, 1000, 1080), span("ep", "dispatch", "fwd", collective, 1080, 1200),
       span("compute", "shared", "fwd", compute, 1080, 1150), span("compute", "dispatch", "fwd", wait, 1150, 1200),
       span("compute", "experts", "fwd", compute, 1200, 1280), span("compute", "experts", "bwd", compute, 1280, 1360),
       span("ep", "combine", "bwd", collective, 1280, 1340), span("compute", "qkv", "wgrad", compute, 1360, 1400)}};
}

TEST(RenderText, Golden) {
  EXPECT_EQ(render_text(small_timeline(), 56),
            "small: 400 us, waiting 50.0 us (12.5 %); one column is 10.0 us\n"
            "compute |aaaaaaaasssssss!!!!!eeeeeeeeEEEEEEEEwwww|  88 %\n"
            "ep      |        >>>>>>>>>>>>        <<<<<<      |  45 %\n"
            "        |0                  |200 us             |400 us\n"
            "! waiting | < combine | > dispatch | a attention\n"
            "e routed experts | s shared expert, dense\n"
            "w weight gradients | capitals: backward\n");
}

TEST(RenderText, NamesRanksAndKeepsTheWidth) {
  const std::string text = render_text(sample_timeline("two", 3, 1, 2), 90);
  EXPECT_THAT(text, HasSubstr("rank 0 compute |"));
  EXPECT_THAT(text, HasSubstr("rank 1 ep      |"));
  size_t at = 0;
  for (int line = 0; at < text.size(); ++line) {
    const size_t end = text.find('\n', at);
    if (line > 0) {
      EXPECT_LE(end - at, 90u) << text.substr(at, end - at);
    }
    at = end + 1;
  }
  for (char c : text) EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << "not ASCII: " << static_cast<int>(c);
}

TEST(RenderText, TooFewColumnsSayHowMany) {
  try {
    render_text(small_timeline(), 20);
    FAIL() << "20 columns were accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("20 columns"));
    EXPECT_THAT(error.what(), HasSubstr("need 26"));
  }
  EXPECT_NO_THROW(render_text(small_timeline(), 26));
  EXPECT_THROW(render_text(small_timeline(), -1), Error);
}

TEST(RenderChrome, EventsHoldEverySpan) {
  const std::vector<Timeline> timelines = {sample_timeline("planned", 4), sample_timeline("measured", 4, 1.5, 2)};
  const json trace = json::parse(render_chrome(timelines));
  std::map<std::string, int> phases;
  std::set<int> processes;
  std::set<std::string> process_names;
  double least = 1e9;
  for (const json& event : trace.at("traceEvents")) {
    ++phases[event.at("ph")];
    processes.insert(event.at("pid").get<int>());
    if (event.at("name") == "process_name") process_names.insert(event.at("args").at("name"));
    if (event.at("ph") == "X") least = std::min(least, event.at("ts").get<double>());
  }
  EXPECT_EQ(phases["X"], static_cast<int>(timelines[0].spans.size() + timelines[1].spans.size()));
  EXPECT_EQ(processes, (std::set{0, 1, 2}));
  EXPECT_EQ(process_names, (std::set<std::string>{"planned, rank 0", "measured, rank 0", "measured, rank 1"}));
  EXPECT_DOUBLE_EQ(least, 0);
}

TEST(RenderChrome, WaitsAndCollectives) {
  const json trace = json::parse(render_chrome({small_timeline()}));
  json wait, dispatch, thread_names = json::array();
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("name") == "wait mb0.l3.fwd.dispatch") wait = event;
    if (event.at("name") == "mb0.l3.fwd.dispatch") dispatch = event;
    if (event.at("name") == "thread_name") thread_names.push_back(event.at("args").at("name"));
  }
  EXPECT_EQ(thread_names, json({"compute", "ep"}));
  EXPECT_EQ(wait.at("cat"), "wait");
  EXPECT_EQ(wait.at("cname"), "terrible");
  EXPECT_EQ(wait.at("ts"), 150);
  EXPECT_EQ(wait.at("dur"), 50);
  EXPECT_NE(wait.at("tid"), dispatch.at("tid"));
  EXPECT_EQ(dispatch.at("args").at("exposed_us"), 50);
  EXPECT_NEAR(dispatch.at("args").at("hidden").get<double>(), 1 - 50.0 / 120, 1e-12);
}

TEST(RenderChrome, OverlappingCollectivesGetThreadsOfTheirOwn) {
  Timeline timeline{"", {}};
  for (int i = 0; i < 3; ++i) {
    timeline.spans.push_back(
        {0, "ep", "c" + std::to_string(i), "dispatch", "fwd", SpanKind::collective, i * 10.0, i * 10.0 + 15});
  }
  const json trace = json::parse(render_chrome({timeline}));
  std::map<std::string, int> thread;
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X") thread[event.at("name")] = event.at("tid");
  }
  EXPECT_EQ(thread["c0"], thread["c2"]);
  EXPECT_NE(thread["c0"], thread["c1"]);
}

TEST(Render, EscapesNames) {
  const std::string nasty = "a<b>&\"c'\x01\xff\n]]>";
  Timeline timeline{nasty, {{0, nasty, nasty, nasty, nasty, SpanKind::compute, 0, 1000}}};
  const json trace = json::parse(render_chrome({timeline}));  // valid JSON whatever the bytes
  bool found = false;
  for (const json& event : trace.at("traceEvents")) {
    found = found || event.at("name").get<std::string>().starts_with("a<b>&\"c'");
  }
  EXPECT_TRUE(found);
  const std::string svg = render_svg({timeline});
  EXPECT_EQ(xml_error(svg), "");
  EXPECT_THAT(svg, HasSubstr("a&lt;b&gt;&amp;&quot;c&#39;\xEF\xBF\xBD\xEF\xBF\xBD"));
  EXPECT_THAT(svg, Not(HasSubstr("\x01")));
}

TEST(RenderSvg, OneBarPerSpanOnOneScale) {
  const std::string svg = render_svg({small_timeline()}, {.width = 1000});
  ASSERT_EQ(xml_error(svg), "");
  const auto rects = elements(svg, "rect");
  const auto widths_of = [&](const std::string& name) {
    std::vector<double> widths;
    for (const auto& rect : rects) {
      if (rect.at("class") == name && rect.at("height") == "21.0") widths.push_back(std::stod(rect.at("width")));
    }
    return widths;
  };
  ASSERT_EQ(widths_of("attention").size(), 1u);
  ASSERT_EQ(widths_of("attention-wgrad").size(), 1u);
  ASSERT_EQ(widths_of("experts-bwd").size(), 1u);
  ASSERT_EQ(widths_of("communication-bwd").size(), 1u);
  ASSERT_EQ(widths_of("wait").size(), 1u);
  // 80 us against 40 us; bars are 0.6 px short so that neighbours stay apart.
  EXPECT_NEAR(widths_of("attention")[0] + 0.6, 2 * (widths_of("attention-wgrad")[0] + 0.6), 0.03);
  EXPECT_EQ(elements(svg, "title").size(), 8u);
  EXPECT_THAT(svg, HasSubstr("waiting for mb0.l3.fwd.dispatch\n50.0 µs, from 150 µs to 200 µs"));
  EXPECT_THAT(svg, HasSubstr("exposed 50.0 µs, hidden 58.3 %"));
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(svg, Not(HasSubstr("href")));  // nothing from outside
  for (const char* tick : {">0<", ">100 µs<", ">400 µs<"}) EXPECT_THAT(svg, HasSubstr(tick));
  for (const auto& rect : rects) {
    if (!rect.contains("x")) continue;
    EXPECT_GE(std::stod(rect.at("x")), 0);
    EXPECT_LE(std::stod(rect.at("x")) + std::stod(rect.at("width")), 1000);
  }
}

TEST(RenderSvg, APartOfTheTime) {
  const std::string svg = render_svg({small_timeline()}, {.from_us = 90, .to_us = 140, .legend = false});
  EXPECT_EQ(xml_error(svg), "");
  EXPECT_EQ(elements(svg, "title").size(), 2u);  // shared and dispatch; qkv ended, the wait has not begun
  EXPECT_THAT(svg, Not(HasSubstr("routed experts")));
}

TEST(RenderSvg, RefusesImpossibleViews) {
  EXPECT_THROW(render_svg({small_timeline()}, {.from_us = 400}), Error);
  EXPECT_THROW(render_svg({small_timeline()}, {.from_us = 100, .to_us = 50}), Error);
  EXPECT_THROW(render_svg({small_timeline()}, {.from_us = -1}), Error);
  EXPECT_THROW(render_svg({small_timeline()}, {.width = 120}), Error);
}

TEST(Render, EmptyTimelines) {
  const Timeline empty{"nothing", {}};
  EXPECT_EQ(render_text(empty), "nothing: empty\n");
  EXPECT_TRUE(json::parse(render_chrome({})).at("traceEvents").empty());
  EXPECT_TRUE(json::parse(render_chrome({empty})).at("traceEvents").empty());
  EXPECT_EQ(xml_error(render_svg({})), "");
  EXPECT_EQ(xml_error(render_svg({empty})), "");
  EXPECT_EQ(xml_error(render_svg({empty, small_timeline()})), "");
}

TEST(Render, RefusesBrokenTimes) {
  for (double end : {5.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const Timeline broken{"bad", {{0, "compute", "x", "qkv", "fwd", SpanKind::compute, 10, end}}};
    EXPECT_THROW(render_text(broken), Error);
    EXPECT_THROW(render_chrome({broken}), Error);
    EXPECT_THROW(render_svg({broken}), Error);
  }
}

}  // namespace
}  // namespace farskip
