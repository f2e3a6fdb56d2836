#include "trace/rows.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "base/error.h"
#include "trace/drawing.h"

namespace farskip {
namespace {

constexpr double kTouchUs = 1e-3;  ///< spans that overlap by less than this only touch (rounding of clocks)

void check_span(const Timeline& timeline, const Span& span) {
  if (!std::isfinite(span.begin_us) || !std::isfinite(span.end_us) || span.end_us < span.begin_us) {
    fail("timeline '{}': span '{}' runs from {} to {} us; it must end after it begins", timeline.title, span.name,
         span.begin_us, span.end_us);
  }
}

int lane_order(const std::string& lane) { return lane == "host" ? 0 : lane == "compute" ? 1 : 2; }

/// The fewest rows such that spans of one row do not overlap: each span takes the first row that is free.
void append_rows(std::vector<TimelineRow>& rows, int rank, const std::string& lane, std::vector<const Span*> spans) {
  std::stable_sort(spans.begin(), spans.end(), [](auto* a, auto* b) { return a->begin_us < b->begin_us; });
  const size_t first = rows.size();
  for (const Span* span : spans) {
    size_t row = first;
    while (row < rows.size() && rows[row].spans.back()->end_us > span->begin_us + kTouchUs) ++row;
    if (row == rows.size()) rows.push_back({rank, lane, static_cast<int>(row - first), {}});
    rows[row].spans.push_back(span);
  }
}

}  // namespace

TimelineRows rows_of(const Timeline& timeline) {
  std::map<std::tuple<int, int, std::string>, std::vector<const Span*>> lanes;
  std::map<int, double> waiting;
  TimelineRows result;
  for (const Span& span : timeline.spans) {
    check_span(timeline, span);
    const bool first = lanes.empty();
    result.begin_us = first ? span.begin_us : std::min(result.begin_us, span.begin_us);
    result.end_us = first ? span.end_us : std::max(result.end_us, span.end_us);
    lanes[{span.rank, lane_order(span.lane), span.lane}].push_back(&span);
    waiting[span.rank] += is_waiting(span.kind) ? span.end_us - span.begin_us : 0;
  }
  for (auto& [key, spans] : lanes) append_rows(result.rows, std::get<0>(key), std::get<2>(key), std::move(spans));
  result.num_ranks = static_cast<int>(waiting.size());
  for (const auto& [rank, us] : waiting) result.waiting_us = std::max(result.waiting_us, us);
  return result;
}

std::string summary_line(const TimelineRows& rows, const char* micro) {
  if (rows.rows.empty()) return "empty";
  const double share = rows.length_us() > 0 ? 100 * rows.waiting_us / rows.length_us() : 0;
  return fmt::format("{}, waiting {} ({:.1f} %){}", format_us(rows.length_us(), micro),
                     format_us(rows.waiting_us, micro), share,
                     rows.num_ranks > 1 ? " on the rank that waits longest" : "");
}

}  // namespace farskip
