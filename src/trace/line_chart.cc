#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "base/error.h"
#include "trace/charts.h"
#include "trace/drawing.h"

namespace farskip {
namespace {

constexpr double kWidth = 640, kHeight = 320, kLeft = 66, kRight = 16, kBottom = 46;
constexpr size_t kNumColours = 6;    ///< classes s0..s5 of the page's style
constexpr size_t kMaxPoints = 1500;  ///< of a drawn line; longer ones keep the extremes of each piece
constexpr size_t kMaxMarks = 40;     ///< of a line whose points are drawn
constexpr size_t kMaxHoverPoints = 150;

struct Axis {
  bool log = false;
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  std::vector<double> ticks;
  std::vector<std::string> labels;

  bool shows(double value) const { return std::isfinite(value) && (!log || value > 0); }
  double scaled(double value) const { return log ? std::log10(value) : value; }
  void include(double value) { low = std::min(low, value), high = std::max(high, value); }
  double share(double value) const { return (scaled(value) - scaled(low)) / (scaled(high) - scaled(low)); }

  void finish(int max_steps, double padding) {
    if (low > high) low = log ? 1 : 0, high = log ? 10 : 1;
    if (low == high) {
      const double around = log ? 0 : std::max(std::abs(low) * 0.1, 1e-6);
      low = log ? low / 2 : low - around, high = log ? high * 2 : high + around;
    }
    if (log) {
      finish_log();
      return;
    }
    const double room = (high - low) * padding;
    // Room below must not invent negative losses.
    low = low >= 0 ? std::max(0.0, low - room) : low - room, high += room;
    ticks = round_ticks(low, high, max_steps);
    const double step = round_step(high - low, max_steps);
    for (double tick : ticks) labels.push_back(format_tick(tick, step));
  }

  /// Powers of ten, with 2 and 5 (or every digit) between them where the axis spans little.
  void finish_log() {
    const double decades = std::log10(high / low);
    std::vector<int> digits = {1};
    if (decades < 2.5) digits = {1, 2, 5};
    if (decades < 0.8) digits = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    const int stride = std::max(1, static_cast<int>(decades / 8));
    for (int power = static_cast<int>(std::floor(std::log10(low))); power <= std::log10(high); power += stride) {
      for (int digit : digits) {
        const double tick = digit * std::pow(10, power);
        if (tick < low * (1 - 1e-9) || tick > high * (1 + 1e-9)) continue;
        ticks.push_back(tick);
        labels.push_back(fmt::format("{:.4g}", tick));
      }
    }
  }
};

using Points = std::vector<std::pair<double, double>>;

/// Keeps the lowest and highest point of each piece, so that spikes of a long run stay visible.
Points thinned(const Points& points) {
  if (points.size() <= kMaxPoints) return points;
  Points kept;
  const size_t pieces = kMaxPoints / 2;
  for (size_t piece = 0; piece < pieces; ++piece) {
    const auto first = points.begin() + static_cast<ptrdiff_t>(piece * points.size() / pieces);
    const auto last = points.begin() + static_cast<ptrdiff_t>((piece + 1) * points.size() / pieces);
    auto [low, high] = std::minmax_element(first, last, [](auto& a, auto& b) { return a.second < b.second; });
    if (high < low) std::swap(low, high);
    kept.push_back(*low);
    if (low != high) kept.push_back(*high);
  }
  return kept;
}

}  // namespace

std::string line_chart_svg(const LineChart& chart) {
  Axis x_axis{.log = chart.log_x, .ticks = {}, .labels = {}}, y_axis{.log = chart.log_y, .ticks = {}, .labels = {}};
  for (const Series& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      if (x_axis.shows(x) && y_axis.shows(y)) x_axis.include(x), y_axis.include(y);
    }
  }
  x_axis.finish(8, 0);
  y_axis.finish(6, 0.05);

  std::string out;
  const auto draw = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
  };
  draw("<text class=\"chart-title\" x=\"{}\" y=\"18\">{}</text>\n", kLeft, escape_xml(chart.title));
  double legend_x = kLeft, legend_y = 36;
  for (size_t i = 0; i < chart.series.size() && chart.series.size() > 1; ++i) {
    const double width = 24 + 7.0 * static_cast<double>(num_characters(chart.series[i].name)) + 18;
    if (legend_x > kLeft && legend_x + width > kWidth) legend_x = kLeft, legend_y += 18;
    draw("<line class=\"line s{0}\" x1=\"{1:.1f}\" x2=\"{2:.1f}\" y1=\"{3:.1f}\" y2=\"{3:.1f}\"/>", i % kNumColours,
         legend_x, legend_x + 18, legend_y);
    draw("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", legend_x + 24, legend_y + 4, escape_xml(chart.series[i].name));
    legend_x += width;
  }
  const double top = chart.series.size() > 1 ? legend_y + 16 : 32, bottom = kHeight - kBottom;
  const auto px = [&](double x) { return kLeft + x_axis.share(x) * (kWidth - kLeft - kRight); };
  const auto py = [&](double y) { return bottom - y_axis.share(y) * (bottom - top); };

  for (size_t i = 0; i < y_axis.ticks.size(); ++i) {
    const double y = py(y_axis.ticks[i]);
    draw("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>", kLeft, kWidth - kRight,
         y);
    draw("<text class=\"soft\" text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", kLeft - 7, y + 4,
         y_axis.labels[i]);
  }
  for (size_t i = 0; i < x_axis.ticks.size(); ++i) {
    const double x = px(x_axis.ticks[i]);
    draw("<line class=\"axis\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>", x, bottom, bottom + 5);
    draw("<text class=\"soft\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x, bottom + 18,
         x_axis.labels[i]);
  }
  draw("<line class=\"axis\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>\n", kLeft, kWidth - kRight,
       bottom);
  draw("<text class=\"soft\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
       (kLeft + kWidth - kRight) / 2, kHeight - 8, escape_xml(chart.x_label));
  draw("<text class=\"soft\" text-anchor=\"middle\" transform=\"translate(14,{:.1f}) rotate(-90)\">{}</text>\n",
       (top + bottom) / 2, escape_xml(chart.y_label));

  for (size_t i = 0; i < chart.series.size(); ++i) {
    const Points points = thinned(chart.series[i].points);
    std::string path, hover;
    const size_t stride = std::max<size_t>(1, points.size() / kMaxHoverPoints);
    const bool sparse = points.size() <= kMaxMarks;
    bool pen_down = false;
    for (size_t j = 0; j < points.size(); ++j) {
      const auto& [x, y] = points[j];
      const bool shown = x_axis.shows(x) && y_axis.shows(y);
      if (shown) path += fmt::format("{}{:.1f} {:.1f}", pen_down ? " L" : " M", px(x), py(y));
      pen_down = shown;
      if (!shown || (j % stride != 0 && j + 1 != points.size())) continue;
      hover += fmt::format(
          "<circle class=\"{} s{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"><title>{}: {} {:.6g}, {} {:.6g}"
          "</title></circle>",
          sparse ? "mark" : "point", i % kNumColours, px(x), py(y), sparse ? 3 : 4, escape_xml(chart.series[i].name),
          escape_xml(chart.x_label), x, escape_xml(chart.y_label), y);
    }
    if (!path.empty()) draw("<path class=\"line s{}\" d=\"{}\"/>\n{}\n", i % kNumColours, path.substr(1), hover);
  }
  return fmt::format("<svg class=\"chart\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
                     kWidth, kHeight, escape_xml(chart.title), out);
}

}  // namespace farskip
