#pragma once
// How much communication was hidden, by one definition for bench, train and reports. Per collective: duration (launch
// to completion) and exposed time (the compute lane stood waiting for it); hidden = 1 - exposed / duration.

#include <functional>
#include <string>
#include <vector>

#include "trace/span.h"
#include "trace/table.h"

namespace farskip {

/// Why a collective is exposed.
enum class Exposure : uint8_t {
  none,                 ///< it is not
  no_window,            ///< nothing was computed between its launch and the wait for it
  window_too_short,     ///< something was, but less than it took
  first_or_last_layer,  ///< no order can hide it: the first of a backward, the last of a forward
  nothing_beside_it,    ///< no order can hide it: every computation leads to it or needs it
  host_sync,            ///< the host needs its result before it can go on
  not_enabled,          ///< overlap is off: every collective is awaited where it is launched
};
const char* to_string(Exposure exposure);
/// The inverse of to_string; throws Error for any other text.
Exposure parse_exposure(const std::string& text);

/// One collective of one rank.
struct CollectiveTiming {
  int rank = 0;
  std::string lane;
  std::string name;
  std::string stage;
  std::string pass;
  double launch_us = 0;
  double duration_us = 0;
  double exposed_us = 0;
  double window_us =
      0;  ///< time computed on its rank between its launch and the first wait for it (else its completion)
  Exposure reason = Exposure::none;
  bool hideable = true;  ///< some order could hide it
};

/// What the caller knows and spans cannot tell (the graph's first and last collectives, overlap switched off).
/// Exposure::none leaves the decision to the rule of measure_overlap; first_or_last_layer and nothing_beside_it also
/// clear `hideable`.
using ExposureHint = std::function<Exposure(const CollectiveTiming&)>;

/// All collectives of a timeline, by rank and launch. Wait spans are found by the collective's name; where a name
/// repeats (several steps), a wait belongs to the latest launch before it. An exposed time below 1 % of the duration or
/// below 1 us counts as none for the reason (not for the figures). Else the reason is the hint's, or by this rule: a
/// stage that layer/stage.h calls a host sync (counts) -> host_sync; window below 1 us -> no_window; else
/// window_too_short. Throws Error for a wait whose collective is not in the timeline, and for broken times.
std::vector<CollectiveTiming> measure_overlap(const Timeline& timeline, const ExposureHint& hint = nullptr);

/// Sums over collectives of one kind, or of one direction.
struct OverlapRow {
  struct Reason {
    Exposure reason;
    int count;
    double exposed_us;
  };
  std::string stage;  ///< empty in totals
  std::string pass;   ///< "fwd", "bwd", "rec", "step"; in totals: "forward", "backward", "total"
  int count = 0;
  double duration_us = 0;
  double exposed_us = 0;
  std::vector<Reason> reasons;  ///< of the exposed ones, the largest exposed time first
  void add(const CollectiveTiming& collective);
  double hidden() const { return duration_us > 0 ? 1 - exposed_us / duration_us : 1; }
  /// "window too short", or "no window (2), window too short (10)" where there are several; empty if nothing is
  /// exposed.
  std::string reason_text() const;
  /// The reason with the most exposed time alone: "mostly no window"; empty if nothing is exposed.
  std::string main_reason() const;
};

struct OverlapSummary {
  std::vector<OverlapRow> kinds;  ///< per (pass, stage), in the order of their first launch
  OverlapRow forward;             ///< pass fwd
  OverlapRow backward;            ///< passes bwd and wgrad
  OverlapRow total;               ///< these and the rest of the step
  OverlapRow hideable_forward;    ///< the same without those that no order can hide
  OverlapRow hideable_backward;
  OverlapRow hideable_total;
  int num_ranks = 0;
};

OverlapSummary summarize(const std::vector<CollectiveTiming>& collectives);

/// Times are means per rank and step. The note says what the columns are.
Table overlap_table(const OverlapSummary& summary, int num_steps = 1);
/// overlap_table for a terminal.
std::string render_text(const OverlapSummary& summary, int num_steps = 1);

}  // namespace farskip
