#pragma once
// Charts of the report, as inline SVG that takes its colours from the page's style (report_style.h).

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trace/overlap.h"

namespace farskip {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>>
      points;  ///< (x, y) in the order of the line; points that are not finite break it
};

struct LineChart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  bool log_x = false;  ///< values that are not positive are left out on a logarithmic axis
  bool log_y = false;
};

struct Heatmap {
  std::string title;
  std::string row_label;     ///< what a row is: "layer"
  std::string column_label;  ///< what a column is: "expert"
  std::vector<std::string> rows;
  std::vector<std::string> columns;
  std::vector<std::vector<double>> values;  ///< [row][column]; what is not finite stays blank
  std::string unit;                         ///< behind values in the hover text: "x mean"
  std::optional<double> centre;             ///< two colours around this value (1 for load relative to the mean)
};

/// Horizontal bars split in two parts.
struct SplitBars {
  struct Bar {
    std::string label;
    double hidden = 0;
    double exposed = 0;
    std::string reason;  ///< beside the bar, may be empty
  };
  std::string title;
  std::string unit;  ///< of the two parts: "ms"
  std::vector<Bar> bars;
};

std::string line_chart_svg(const LineChart& chart);
/// Throws Error where the labels and values differ in number.
std::string heatmap_svg(const Heatmap& heatmap);
std::string split_bars_svg(const SplitBars& bars);

/// A bar per kind of collective, in ms per rank and step.
SplitBars overlap_bars(const std::string& title, const OverlapSummary& summary, int num_steps = 1);

}  // namespace farskip
