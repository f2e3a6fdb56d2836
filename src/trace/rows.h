#pragma once
// A timeline sorted into rows, the common first step of all renderers.

#include <string>
#include <vector>

#include "trace/span.h"

namespace farskip {

/// Spans of one lane of one rank that do not overlap, by time.
struct TimelineRow {
  int rank = 0;
  std::string lane;
  int overflow = 0;                ///< 0, or 1, 2, ... for spans that overlap with those of the rows before
  std::vector<const Span*> spans;  ///< into the timeline, which must outlive the rows
};

struct TimelineRows {
  std::vector<TimelineRow> rows;  ///< by rank; host and compute before the communicators
  double begin_us = 0;  ///< of the first span: renderers draw it at zero, so timelines of several clocks align
  double end_us = 0;    ///< of the last span
  int num_ranks = 0;
  double waiting_us = 0;  ///< of the rank that waits longest
  double length_us() const { return end_us - begin_us; }
};

/// Throws Error for a span whose times are not finite or run backwards.
TimelineRows rows_of(const Timeline& timeline);
/// "12.3 ms, waiting 0.41 ms (3.3 %)"
std::string summary_line(const TimelineRows& rows, const char* micro);

}  // namespace farskip
