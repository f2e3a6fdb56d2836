#include "trace/report.h"

#include <algorithm>

#include "base/error.h"
#include "trace/drawing.h"
#include "trace/report_style.h"

namespace farskip {

HtmlReport::HtmlReport(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void HtmlReport::add_block(const std::string& html) {
  if (in_charts_) body_ += "</div>\n";
  in_charts_ = false;
  body_ += html;
}

void HtmlReport::add_chart(const std::string& svg) {
  if (!in_charts_) body_ += "<div class=\"charts\">\n";
  in_charts_ = true;
  body_ += "<div class=\"panel\">" + svg + "</div>\n";
}

void HtmlReport::add_heading(const std::string& text, int level) {
  if (level != 2 && level != 3) fail("heading '{}' of level {}; reports have levels 2 and 3", text, level);
  add_block(fmt::format("<h{0}>{1}</h{0}>\n", level, escape_xml(text)));
}

void HtmlReport::add_paragraph(const std::string& text) { add_block("<p>" + escape_xml(text) + "</p>\n"); }

void HtmlReport::add_figures(const std::vector<std::pair<std::string, std::string>>& figures) {
  std::string html = "<div class=\"figures\">\n";
  for (const auto& [value, meaning] : figures) {
    html +=
        fmt::format("<div class=\"figure\"><b>{}</b><span>{}</span></div>\n", escape_xml(value), escape_xml(meaning));
  }
  add_block(html + "</div>\n");
}

void HtmlReport::add_table(const Table& table) {
  check_table(table);
  const std::vector<bool> numeric = numeric_columns(table);
  const auto open = [&](const char* tag, size_t column) {
    return fmt::format("<{}{}>", tag, numeric[column] ? " class=\"number\"" : "");
  };
  std::string html = "<div class=\"panel\"><table><thead><tr>";
  for (size_t i = 0; i < table.columns.size(); ++i) html += open("th", i) + escape_xml(table.columns[i]) + "</th>";
  html += "</tr></thead><tbody>\n";
  for (size_t row = 0; row < table.rows.size(); ++row) {
    if (table.rows[row].empty()) continue;
    const bool ends_group = row + 1 < table.rows.size() && table.rows[row + 1].empty();
    html += ends_group ? "<tr class=\"group\">" : "<tr>";
    for (size_t i = 0; i < table.columns.size(); ++i) html += open("td", i) + escape_xml(table.rows[row][i]) + "</td>";
    html += "</tr>\n";
  }
  html += "</tbody></table>";
  if (!table.note.empty()) html += "<p class=\"note\">" + escape_xml(table.note) + "</p>";
  add_block(html + "</div>\n");
}

void HtmlReport::add_line_chart(const LineChart& chart) { add_chart(line_chart_svg(chart)); }
void HtmlReport::add_heatmap(const Heatmap& heatmap) { add_chart(heatmap_svg(heatmap)); }
void HtmlReport::add_bar_chart(const SplitBars& bars) { add_chart(split_bars_svg(bars)); }

void HtmlReport::add_timeline(const std::string& svg, const std::string& caption) {
  const std::string below = caption.empty() ? "" : "<figcaption>" + escape_xml(caption) + "</figcaption>";
  add_block("<div class=\"panel\"><figure class=\"timeline\">" + svg + below + "</figure></div>\n");
}

void HtmlReport::add_details(const std::string& summary, const std::string& text) {
  add_block(fmt::format("<details class=\"panel\"><summary>{}</summary><pre>{}</pre></details>\n", escape_xml(summary),
                        escape_xml(text)));
}

std::string HtmlReport::html() const {
  const std::string reload =
      reload_s_ > 0 ? fmt::format("<meta http-equiv=\"refresh\" content=\"{:.0f}\">\n", std::max(1.0, reload_s_)) : "";
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n{2}<title>{0}</title>\n<style>{1}</style>\n"
      "</head>\n<body>\n<main>\n<h1>{0}</h1>\n",
      escape_xml(title_), kReportStyle, reload);
  if (!subtitle_.empty()) out += "<p class=\"subtitle\">" + escape_xml(subtitle_) + "</p>\n";
  return out + body_ + (in_charts_ ? "</div>\n" : "") + "</main>\n</body>\n</html>\n";
}

}  // namespace farskip
