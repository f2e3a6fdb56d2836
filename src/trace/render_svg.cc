#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "base/error.h"
#include "trace/drawing.h"
#include "trace/family.h"
#include "trace/overlap.h"
#include "trace/render.h"
#include "trace/rows.h"

namespace farskip {
namespace {

constexpr double kCharacter = 5.9;  ///< width of a character at 10 px, on the safe side
constexpr double kMargin = 12;
constexpr double kTitle = 26;
constexpr double kRowGap = 3;
constexpr double kRankGap = 7;
constexpr double kAxis = 26;
constexpr double kLegendLine = 20;

constexpr const char* kStyle = R"(
.fs-timeline{--ink:#1d2733;--soft:#5b6875;--grid:#dfe4ea;--lane:#f3f5f8;--paper:#ffffff;--wait:#d7263d;
background:var(--paper);font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-size:10px}
@media (prefers-color-scheme:dark){.fs-timeline{--ink:#e6ebf1;--soft:#9aa7b5;--grid:#2c3743;--lane:#1b232c;
--paper:#12181f;--wait:#ff5a6e}}
.fs-timeline text{fill:var(--ink)}.fs-timeline .soft{fill:var(--soft)}
.fs-timeline .title{font-size:13px;font-weight:600}
.fs-timeline .note{font-size:11px;font-weight:400;fill:var(--soft)}
.fs-timeline .lane{fill:var(--lane);fill-opacity:.7}
.fs-timeline .grid{stroke:var(--grid);stroke-width:1}.fs-timeline .on-dark{fill:#fff}.fs-timeline .on-light{fill:#111}
.fs-timeline .bar text{pointer-events:none}.fs-timeline .bar:hover rect{stroke:var(--ink);stroke-width:1.5}
.fs-timeline .wait{stroke:var(--wait);stroke-width:1}.fs-timeline .hatch{stroke:var(--wait);stroke-width:2.5}
.fs-timeline .hatched{fill:var(--paper)}
)";

std::string class_of(const Span& span) {
  const bool shaded = span.pass == "bwd" || span.pass == "rec" || span.pass == "wgrad";
  return std::string(to_string(family_of(span))) + (shaded ? "-" + span.pass : "");
}

/// The longest of "mb0.l3.fwd.qkv", "l3 qkv" and "qkv" that fits.
std::string label_of(const Span& span, double width) {
  std::vector<std::string> candidates = {span.name};
  std::istringstream parts(span.name);
  for (std::string part; std::getline(parts, part, '.');) {
    const bool layer = part.size() > 1 && part[0] == 'l' && part.find_first_not_of("0123456789", 1) == part.npos;
    if (layer) candidates.push_back(part + " " + span.stage);
  }
  candidates.push_back(span.stage);
  if (is_waiting(span.kind)) candidates = {"wait for " + span.stage, "wait"};
  for (const std::string& candidate : candidates) {
    if (!candidate.empty() && kCharacter * static_cast<double>(num_characters(candidate)) + 6 <= width)
      return candidate;
  }
  return "";
}

class SvgTimelines {
 public:
  SvgTimelines(const std::vector<Timeline>& timelines, const SvgOptions& options)
      : timelines_(timelines), options_(options), from_us_(options.from_us), to_us_(options.to_us) {
    double longest = 0, label = 0;
    for (const Timeline& timeline : timelines) {
      all_rows_.push_back(rows_of(timeline));
      longest = std::max(longest, all_rows_.back().length_us());
      for (const TimelineRow& row : all_rows_.back().rows) {
        label = std::max(label, static_cast<double>(num_characters(label_of(all_rows_.back(), row))));
      }
    }
    if (to_us_ == 0) to_us_ = longest > 0 ? longest : from_us_ + 1;
    if (!(from_us_ >= 0 && to_us_ > from_us_) || (longest > 0 && from_us_ >= longest)) {
      fail("a timeline from {} to {} us: the spans lie between 0 and {} us", from_us_, to_us_, longest);
    }
    left_ = kMargin + label * kCharacter + 10;
    plot_width_ = options.width - left_ - kMargin;
    if (!(plot_width_ >= 100)) {
      fail("a timeline {} pixels wide leaves {} for its bars; give at least {}", options.width, plot_width_,
           std::ceil(left_ + kMargin + 100));
    }
  }

  std::string render() {
    y_ = kMargin;
    if (options_.legend) legend();
    const double top = y_;
    for (size_t i = 0; i < timelines_.size(); ++i) timeline(timelines_[i], all_rows_[i]);
    axis(top);
    return document();
  }

 private:
  template <typename... Args>
  void draw(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(body_), format, std::forward<Args>(args)...);
  }

  static std::string label_of(const TimelineRows& rows, const TimelineRow& row) {
    if (row.overflow > 0) return "";
    return rows.num_ranks > 1 ? fmt::format("rank {} {}", row.rank, row.lane) : row.lane;
  }
  using FirstSpans = std::map<std::string, const Span*>;

  double x_of(double us) const { return left_ + (us - from_us_) / (to_us_ - from_us_) * plot_width_; }

  void legend_entry(double& x, const std::string& swatch, const std::string& text) {
    const double width = 14 + 5 + 6.3 * static_cast<double>(num_characters(text)) + 12;
    if (x > left_ && x + width > options_.width - kMargin) x = left_, y_ += kLegendLine;
    draw("<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"11\" rx=\"2\"{}/>", swatch, x, y_,
         swatch == "wait" ? fmt::format(" fill=\"url(#{})\"", kHatch) : "");
    draw("<text class=\"soft\" style=\"font-size:11px\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x + 19, y_ + 9.5,
         escape_xml(text));
    x += width;
  }

  void legend() {
    std::set<StageFamily> families;
    std::set<std::string> passes;
    bool waits = false;
    for (const Timeline& timeline : timelines_) {
      for (const Span& span : timeline.spans) {
        if (is_waiting(span.kind)) waits = true;
        if (is_waiting(span.kind)) continue;
        families.insert(family_of(span));
        passes.insert(span.pass);
      }
    }
    double x = left_;
    for (StageFamily family : families) {
      fills_[to_string(family)] = colour_of(family, "fwd");
      legend_entry(x, to_string(family), legend_text(family));
    }
    if (waits) legend_entry(x, "wait", "waiting for communication");
    // One family shows what the shades mean.
    if (families.empty()) return;
    const StageFamily sample = *families.begin();
    for (const auto& [pass, text] : {std::pair{"bwd", "backward: darker"},
                                     {"rec", "recomputed: somewhat darker"},
                                     {"wgrad", "weight gradient: lighter"}}) {
      if (!passes.contains(pass)) continue;
      const std::string swatch = fmt::format("{}-{}", to_string(sample), pass);
      fills_[swatch] = colour_of(sample, pass);
      legend_entry(x, swatch, text);
    }
    y_ += kLegendLine + 4;
  }

  void timeline(const Timeline& timeline, const TimelineRows& rows) {
    draw("<text class=\"title\" x=\"{:.1f}\" y=\"{:.1f}\">{}<tspan class=\"note\" dx=\"10\">{}</tspan></text>\n", left_,
         y_ + 15, escape_xml(timeline.title), escape_xml(summary_line(rows, "µs")));
    y_ += kTitle;
    exposed_.clear();
    for (const CollectiveTiming& c : measure_overlap(timeline)) exposed_[{c.rank, c.name, c.launch_us}] = c.exposed_us;
    const TimelineRow* previous = nullptr;
    for (const TimelineRow& row : rows.rows) {
      if (previous != nullptr && previous->rank != row.rank) y_ += kRankGap;
      draw("<rect class=\"lane\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"2\"/>\n", left_, y_,
           plot_width_, options_.row_height);
      draw("<text class=\"soft\" text-anchor=\"end\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", left_ - 8,
           y_ + options_.row_height / 2 + 3.5, escape_xml(label_of(rows, row)));
      for (const Span* span : row.spans) bar(*span, rows);
      y_ += options_.row_height + kRowGap;
      previous = &row;
    }
    y_ += 8;
  }

  void bar(const Span& span, const TimelineRows& rows) {
    const double begin = span.begin_us - rows.begin_us, end = span.end_us - rows.begin_us;
    if (end < from_us_ || begin > to_us_) return;
    const double x = x_of(std::max(begin, from_us_));
    double width = x_of(std::min(end, to_us_)) - x;
    if (width > 3) width -= 0.6;  // neighbours stay apart
    width = std::max(width, 0.4);
    const double y = y_ + 1.5, height = options_.row_height - 3;
    const bool wait = is_waiting(span.kind);
    const std::string fill_class = class_of(span);
    const Rgb fill = colour_of(family_of(span), span.pass);
    if (!wait) fills_[fill_class] = fill;

    draw("<g class=\"bar\"><title>{}</title>", escape_xml(tooltip(span, begin, end)));
    if (wait) {
      draw("<rect class=\"hatched\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\"/>", x, y, width,
           height);
      draw("<rect class=\"wait\" fill=\"url(#{})\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\"/>",
           kHatch, x, y, width, height);
    } else {
      draw("<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" rx=\"{:.1f}\"/>",
           fill_class, x, y, width, height, std::min(2.0, width / 4));
    }
    const std::string label = wait ? "" : ::farskip::label_of(span, width);
    if (!label.empty()) {
      draw("<text class=\"{}\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>",
           fill.is_dark() ? "on-dark" : "on-light", x + width / 2, y + height / 2 + 3.5, escape_xml(label));
    }
    draw("</g>\n");
  }

  std::string tooltip(const Span& span, double begin, double end) const {
    std::string text = fmt::format("{}{}\n{}, from {} to {}\nrank {}, lane {}, stage {}, pass {}",
                                   is_waiting(span.kind) ? "waiting for " : "", span.name, format_us(end - begin),
                                   format_us(begin), format_us(end), span.rank, span.lane, span.stage, span.pass);
    if (span.kind == SpanKind::collective) {
      const double exposed = exposed_.at({span.rank, span.name, span.begin_us});
      text += fmt::format("\nexposed {}", format_us(exposed));
      if (end > begin) text += fmt::format(", hidden {:.1f} %", 100 * (1 - exposed / (end - begin)));
    }
    return text;
  }

  void axis(double top) {
    const TimeTicks ticks = time_ticks(from_us_, to_us_, std::max(2, static_cast<int>(plot_width_ / 80)));
    std::string lines;
    for (size_t i = 0; i < ticks.at_us.size(); ++i) {
      const double x = x_of(ticks.at_us[i]);
      lines += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>\n", x,
                           top + kTitle - 4, y_);
      const char* anchor = x > options_.width - 40 ? "end" : "middle";
      draw("<text class=\"soft\" text-anchor=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", anchor, x, y_ + 14,
           ticks.labels[i]);
    }
    y_ += kAxis;
    body_.insert(0, lines);  // behind the bars
  }

  std::string document() const {
    std::string fills;
    for (const auto& [name, colour] : fills_) fills += fmt::format(".fs-timeline .{}{{fill:{}}}\n", name, colour.hex());
    std::string titles;
    for (const Timeline& timeline : timelines_) titles += (titles.empty() ? "" : ", ") + timeline.title;
    std::string out = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fs-timeline\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" aria-label=\"{2}\">\n<style>{3}{4}</style>\n"
        "<defs><pattern id=\"{5}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
        "patternTransform=\"rotate(45)\"><line class=\"hatch\" x1=\"1.5\" y1=\"0\" x2=\"1.5\" "
        "y2=\"6\"/></pattern></defs>\n",
        options_.width, y_, escape_xml("timeline: " + titles), kStyle, fills, kHatch);
    return out + body_ + "</svg>\n";
  }

  /// The same in every drawing, so several in one page may share it.
  static constexpr const char* kHatch = "fs-wait-hatch";

  const std::vector<Timeline>& timelines_;
  const SvgOptions options_;
  double from_us_, to_us_;
  std::vector<TimelineRows> all_rows_;
  double left_ = 0, plot_width_ = 0, y_ = 0;
  std::map<std::string, Rgb> fills_;
  std::map<std::tuple<int, std::string, double>, double> exposed_;
  std::string body_;
};

}  // namespace

std::string render_svg(const std::vector<Timeline>& timelines, const SvgOptions& options) {
  return SvgTimelines(timelines, options).render();
}

}  // namespace farskip
