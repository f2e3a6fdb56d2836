// Heatmaps and split bars.

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "base/error.h"
#include "trace/charts.h"
#include "trace/drawing.h"

namespace farskip {
namespace {

constexpr double kCharacter = 6.6;  ///< width of a character at 12 px

double longest(const std::vector<std::string>& labels) {
  size_t most = 0;
  for (const std::string& label : labels) most = std::max(most, num_characters(label));
  return kCharacter * static_cast<double>(most);
}

std::string svg(double width, double height, const std::string& title, const std::string& body) {
  return fmt::format("<svg class=\"chart\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
                     width, height, escape_xml(title), body);
}

/// Opacity of the colour "high" or "low" over the page's ground, so that light and dark pages both work.
struct Scale {
  double low, high;
  std::optional<double> centre;

  explicit Scale(const Heatmap& heatmap) : centre(heatmap.centre) {
    low = std::numeric_limits<double>::infinity(), high = -low;
    for (const auto& row : heatmap.values) {
      for (double value : row) {
        if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
      }
    }
    if (low > high) low = 0, high = 1;
    if (centre) {
      const double reach = std::max({high - *centre, *centre - low, 1e-12});
      low = *centre - reach, high = *centre + reach;
    } else {
      low = std::min(low, 0.0);  // counts and shares start at nothing
      if (low == high) high = low + 1;
    }
  }
  const char* colour(double value) const { return centre && value < *centre ? "low" : "high"; }
  double opacity(double value) const {
    const double share = centre ? std::abs(value - *centre) / (high - *centre) : (value - low) / (high - low);
    return std::round(100 * std::clamp(share, 0.0, 1.0)) / 100;
  }
};

}  // namespace

std::string heatmap_svg(const Heatmap& heatmap) {
  if (heatmap.values.size() != heatmap.rows.size()) {
    fail("heatmap '{}': {} rows of values and {} labels; they must agree", heatmap.title, heatmap.values.size(),
         heatmap.rows.size());
  }
  for (size_t i = 0; i < heatmap.rows.size(); ++i) {
    if (heatmap.values[i].size() != heatmap.columns.size()) {
      fail("heatmap '{}': row '{}' has {} values, but there are {} columns", heatmap.title, heatmap.rows[i],
           heatmap.values[i].size(), heatmap.columns.size());
    }
  }
  const Scale scale(heatmap);
  const double left = std::max(34.0, longest(heatmap.rows) + 8) + 20, width = 640, top = 58;
  const double num_columns = static_cast<double>(std::max<size_t>(1, heatmap.columns.size()));
  const double cell_width = (width - left - 12) / num_columns;
  const double cell_height = std::clamp(cell_width, 9.0, 20.0);
  const double bottom = top + cell_height * static_cast<double>(heatmap.rows.size());
  std::string out;
  const auto draw = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
  };
  draw("<text class=\"chart-title\" x=\"{:.1f}\" y=\"18\">{}</text>\n", left, escape_xml(heatmap.title));

  // Scale: eleven swatches from the lowest to the highest value.
  const double swatch = 14;
  for (int i = 0; i <= 10; ++i) {
    const double value = scale.low + (scale.high - scale.low) * i / 10;
    draw("<rect class=\"{}\" x=\"{:.1f}\" y=\"30\" width=\"{}\" height=\"10\" fill-opacity=\"{}\"/>",
         scale.colour(value), left + 56 + i * swatch, swatch, scale.opacity(value));
  }
  draw("<text class=\"soft\" text-anchor=\"end\" x=\"{:.1f}\" y=\"39\">{:.3g}</text>", left + 50, scale.low);
  draw("<text class=\"soft\" x=\"{:.1f}\" y=\"39\">{:.3g} {}</text>\n", left + 62 + 11 * swatch, scale.high,
       escape_xml(heatmap.unit));

  draw("<text class=\"soft\" text-anchor=\"middle\" transform=\"translate(12,{:.1f}) rotate(-90)\">{}</text>\n",
       (top + bottom) / 2, escape_xml(heatmap.row_label));
  const size_t row_stride = static_cast<size_t>(std::ceil(12 / cell_height));
  const double gap = cell_width > 6 ? 1 : 0.3;
  for (size_t row = 0; row < heatmap.rows.size(); ++row) {
    const double y = top + cell_height * static_cast<double>(row);
    if (row % row_stride == 0) {
      draw("<text class=\"soft\" text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", left - 6,
           y + cell_height / 2 + 4, escape_xml(heatmap.rows[row]));
    }
    for (size_t column = 0; column < heatmap.columns.size(); ++column) {
      const double value = heatmap.values[row][column];
      if (!std::isfinite(value)) continue;
      draw(
          "<rect class=\"cell {}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill-opacity=\"{}\">"
          "<title>{} {}, {} {}: {:.4g} {}</title></rect>\n",
          scale.colour(value), left + cell_width * static_cast<double>(column), y, cell_width - gap, cell_height - gap,
          scale.opacity(value), escape_xml(heatmap.row_label), escape_xml(heatmap.rows[row]),
          escape_xml(heatmap.column_label), escape_xml(heatmap.columns[column]), value, escape_xml(heatmap.unit));
    }
  }
  const size_t column_stride = static_cast<size_t>(std::ceil((longest(heatmap.columns) + 8) / cell_width));
  for (size_t column = 0; column < heatmap.columns.size(); column += column_stride) {
    draw("<text class=\"soft\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>",
         left + cell_width * (static_cast<double>(column) + 0.5), bottom + 15, escape_xml(heatmap.columns[column]));
  }
  draw("\n<text class=\"soft\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", (left + width - 12) / 2,
       bottom + 34, escape_xml(heatmap.column_label));
  return svg(width, bottom + 42, heatmap.title, out);
}

std::string split_bars_svg(const SplitBars& bars) {
  std::vector<std::string> labels;
  double most = 0;
  for (const auto& bar : bars.bars) {
    if (!std::isfinite(bar.hidden) || !std::isfinite(bar.exposed) || bar.hidden < 0 || bar.exposed < 0) {
      fail("bar '{}': parts of {} and {}; both must be finite and not negative", bar.label, bar.hidden, bar.exposed);
    }
    labels.push_back(bar.label);
    most = std::max(most, bar.hidden + bar.exposed);
  }
  const double width = 640, left = std::max(60.0, longest(labels) + 12), right = 262, top = 58, pitch = 26;
  const double plot = width - left - right, bottom = top + pitch * static_cast<double>(bars.bars.size());
  if (most == 0) most = 1;
  std::string out;
  const auto draw = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
  };
  draw("<text class=\"chart-title\" x=\"{:.1f}\" y=\"18\">{}</text>\n", left, escape_xml(bars.title));
  draw(
      "<rect class=\"hidden-part\" x=\"{:.1f}\" y=\"32\" width=\"14\" height=\"11\" rx=\"2\"/>"
      "<text x=\"{:.1f}\" y=\"42\">hidden</text>",
      left, left + 20);
  draw(
      "<rect class=\"exposed-part\" x=\"{:.1f}\" y=\"32\" width=\"14\" height=\"11\" rx=\"2\"/>"
      "<text x=\"{:.1f}\" y=\"42\">exposed</text>\n",
      left + 84, left + 104);
  for (double tick : round_ticks(0, most, 5)) {
    const double x = left + tick / most * plot;
    draw("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>", x, top - 4, bottom);
    draw("<text class=\"soft\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{} {}</text>\n", x, bottom + 16,
         format_tick(tick, round_step(most, 5)), escape_xml(bars.unit));
  }
  for (size_t i = 0; i < bars.bars.size(); ++i) {
    const auto& bar = bars.bars[i];
    const double y = top + pitch * static_cast<double>(i), sum = bar.hidden + bar.exposed;
    const double hidden = bar.hidden / most * plot, exposed = bar.exposed / most * plot;
    const std::string share = sum > 0 ? fmt::format("{:.1f} % hidden", 100 * bar.hidden / sum) : "none";
    const std::string text = share + (bar.reason.empty() ? "" : " · " + bar.reason);
    draw("<text text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", left - 8, y + 15, escape_xml(bar.label));
    draw("<g><title>{}: {:.4g} {} hidden, {:.4g} {} exposed; {}</title>", escape_xml(bar.label), bar.hidden,
         escape_xml(bars.unit), bar.exposed, escape_xml(bars.unit), escape_xml(text));
    draw("<rect class=\"hidden-part\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"16\"/>", left, y + 3, hidden);
    draw("<rect class=\"exposed-part\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"16\"/></g>", left + hidden,
         y + 3, exposed);
    draw("<text class=\"soft\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", left + hidden + exposed + 8, y + 15,
         escape_xml(text));
  }
  return svg(width, bottom + 24, bars.title, out);
}

SplitBars overlap_bars(const std::string& title, const OverlapSummary& summary, int num_steps) {
  if (num_steps < 1) fail("overlap bars of {} steps; there must be at least one", num_steps);
  SplitBars bars{title, "ms", {}};
  const double parts = 1e3 * num_steps * std::max(1, summary.num_ranks);
  for (const OverlapRow& row : summary.kinds) {
    const double exposed = std::min(row.exposed_us, row.duration_us);  // a late wake-up can exceed the duration
    bars.bars.push_back(
        {row.stage + " " + row.pass, (row.duration_us - exposed) / parts, exposed / parts, row.main_reason()});
  }
  return bars;
}

}  // namespace farskip
