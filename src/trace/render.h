#pragma once
// Timelines as pictures. Each timeline is drawn from its own first span, which stands at zero, so that a planned and a
// measured one compare at a glance whatever clocks they were taken with. All throw Error for a span that ends before it
// begins, and draw empty timelines as such.

#include <string>
#include <vector>

#include "trace/span.h"

namespace farskip {

/// For chrome://tracing and ui.perfetto.dev: one process per (timeline, rank), one thread per lane. A collective's
/// arguments hold its exposed time. Waits are red.
std::string render_chrome(const std::vector<Timeline>& timelines);

struct SvgOptions {
  double width = 1200;     ///< pixels; the height follows from the rows
  double from_us = 0;      ///< the part that is drawn, counted from each timeline's first span
  double to_us = 0;        ///< 0: to the end of the longest timeline
  double row_height = 24;  ///< pixels of one lane
  bool legend = true;
};

/// Timelines one above the other over one time axis, one row per (rank, lane). Needs nothing from outside, and follows
/// the reader's light or dark colours. Throws Error where nothing lies between from_us and to_us.
std::string render_svg(const std::vector<Timeline>& timelines, const SvgOptions& options = {});

/// One line of letters per lane, `columns` characters wide, with axis and legend, in ASCII. A letter is what fills most
/// of its column. Throws Error where the columns are too few for the lanes' names and ten letters.
std::string render_text(const Timeline& timeline, int columns = 100);

}  // namespace farskip
