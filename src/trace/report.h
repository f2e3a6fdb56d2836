#pragma once
// One HTML page that needs nothing from outside: no network, no scripts, charts as inline SVG.

#include <string>
#include <utility>
#include <vector>

#include "trace/charts.h"
#include "trace/table.h"

namespace farskip {

/// Texts are plain and escaped here. Parts appear in the order in which they are added; neighbouring charts share a
/// line where the window is wide enough.
class HtmlReport {
 public:
  explicit HtmlReport(std::string title, std::string subtitle = "");

  /// The page loads itself again after so many seconds (whole ones, at least 1); 0: it does not.
  void reload_after(double seconds) { reload_s_ = seconds; }

  /// Levels 2 and 3.
  void add_heading(const std::string& text, int level = 2);
  void add_paragraph(const std::string& text);
  /// Large figures with what they are: {{"98.4 %", "hidden in the backward pass"}, ...}
  void add_figures(const std::vector<std::pair<std::string, std::string>>& figures);
  void add_table(const Table& table);
  void add_line_chart(const LineChart& chart);
  void add_heatmap(const Heatmap& heatmap);
  void add_bar_chart(const SplitBars& bars);
  /// What render_svg returned; `caption` may be empty.
  void add_timeline(const std::string& svg, const std::string& caption = "");
  /// Text in its own line breaks (a schedule, a recipe), folded until clicked.
  void add_details(const std::string& summary, const std::string& text);

  std::string html() const;

 private:
  void add_block(const std::string& html);
  void add_chart(const std::string& svg);

  std::string title_;
  std::string subtitle_;
  std::string body_;
  double reload_s_ = 0;
  bool in_charts_ = false;
};

}  // namespace farskip
