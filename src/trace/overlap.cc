#include "trace/overlap.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "layer/stage.h"
#include "trace/drawing.h"
#include "trace/rows.h"

namespace farskip {
namespace {

constexpr double kNothingUs = 1;  ///< clocks and launches jitter by this much
constexpr double kNothingShare = 0.01;

constexpr std::pair<Exposure, const char*> kExposures[] = {
    {Exposure::none, "hidden"},
    {Exposure::no_window, "no window"},
    {Exposure::window_too_short, "window too short"},
    {Exposure::first_or_last_layer, "first or last layer"},
    {Exposure::nothing_beside_it, "nothing to compute beside it"},
    {Exposure::host_sync, "host sync"},
    {Exposure::not_enabled, "not enabled"},
};

struct Measured {
  CollectiveTiming collective;
  double awaited_us;  ///< start of the first wait, else completion
  bool waited = false;
};

/// The computed intervals of one rank, with running sums: time computed before any moment in O(log n).
class ComputeClock {
 public:
  void add(const Span& span) { spans_.push_back({span.begin_us, span.end_us}); }

  void finish() {
    std::sort(spans_.begin(), spans_.end());
    double sum = 0;
    for (const auto& [begin, end] : spans_) sums_.push_back(sum), sum += end - begin;
  }

  double computed_before(double us) const {
    const auto after = std::lower_bound(spans_.begin(), spans_.end(), std::pair{us, us});
    if (after == spans_.begin()) return 0;
    const size_t last = static_cast<size_t>(after - spans_.begin()) - 1;
    return sums_[last] + std::min(us, spans_[last].second) - spans_[last].first;
  }

 private:
  std::vector<std::pair<double, double>> spans_;
  std::vector<double> sums_;
};

Exposure reason_of(const CollectiveTiming& collective, Exposure hinted) {
  const double nothing = std::max(kNothingUs, kNothingShare * collective.duration_us);
  if (collective.exposed_us <= nothing) return Exposure::none;
  if (hinted != Exposure::none) return hinted;
  for (const StageRow& known : stage_table()) {
    if (known.host_sync && known.name == collective.stage) return Exposure::host_sync;
  }
  return collective.window_us <= kNothingUs ? Exposure::no_window : Exposure::window_too_short;
}

Measured& find_awaited(std::vector<Measured*>& launches, const Timeline& timeline, const Span& wait) {
  auto after = std::upper_bound(launches.begin(), launches.end(), wait.begin_us + kNothingUs,
                                [](double us, const Measured* m) { return us < m->collective.launch_us; });
  if (after == launches.begin()) {
    fail("timeline '{}': rank {} waits for '{}' at {} us, which was never launched before; record both or neither",
         timeline.title, wait.rank, wait.name, wait.begin_us);
  }
  return **std::prev(after);
}

}  // namespace

const char* to_string(Exposure exposure) {
  for (const auto& [value, text] : kExposures) {
    if (value == exposure) return text;
  }
  return "unknown";
}

Exposure parse_exposure(const std::string& text) {
  std::string known;
  for (const auto& [value, name] : kExposures) {
    if (text == name) return value;
    known += std::string(known.empty() ? "" : ", ") + "'" + name + "'";
  }
  fail("'{}' is no reason for exposed communication; there are {}", text, known);
}

std::vector<CollectiveTiming> measure_overlap(const Timeline& timeline, const ExposureHint& hint) {
  rows_of(timeline);  // checks the times
  std::vector<Measured> measured;
  std::map<int, ComputeClock> clocks;
  for (const Span& span : timeline.spans) {
    if (span.kind == SpanKind::collective) {
      measured.push_back(
          {{span.rank, span.lane, span.name, span.stage, span.pass, span.begin_us, span.end_us - span.begin_us},
           span.end_us});
    } else if (span.kind == SpanKind::compute && span.lane == "compute") {
      clocks[span.rank].add(span);
    }
  }
  for (auto& [rank, clock] : clocks) clock.finish();
  std::stable_sort(measured.begin(), measured.end(), [](const Measured& a, const Measured& b) {
    return std::pair(a.collective.rank, a.collective.launch_us) < std::pair(b.collective.rank, b.collective.launch_us);
  });

  std::map<std::pair<int, std::string>, std::vector<Measured*>> launches;
  for (Measured& m : measured) launches[{m.collective.rank, m.collective.name}].push_back(&m);
  for (const Span& span : timeline.spans) {
    if (span.kind != SpanKind::wait) continue;
    Measured& m = find_awaited(launches[{span.rank, span.name}], timeline, span);
    m.collective.exposed_us += span.end_us - span.begin_us;
    m.awaited_us = m.waited ? std::min(m.awaited_us, span.begin_us) : span.begin_us;
    m.waited = true;
  }

  std::vector<CollectiveTiming> collectives;
  for (Measured& m : measured) {
    const ComputeClock& clock = clocks[m.collective.rank];
    const double window = clock.computed_before(m.awaited_us) - clock.computed_before(m.collective.launch_us);
    m.collective.window_us = std::max(0.0, window);
    const Exposure hinted = hint ? hint(m.collective) : Exposure::none;
    m.collective.hideable = hinted != Exposure::first_or_last_layer && hinted != Exposure::nothing_beside_it;
    m.collective.reason = reason_of(m.collective, hinted);
    collectives.push_back(std::move(m.collective));
  }
  return collectives;
}

void OverlapRow::add(const CollectiveTiming& collective) {
  ++count;
  duration_us += collective.duration_us;
  exposed_us += collective.exposed_us;
  if (collective.reason == Exposure::none) return;
  auto found = std::find_if(reasons.begin(), reasons.end(), [&](auto& r) { return r.reason == collective.reason; });
  if (found == reasons.end()) found = reasons.insert(found, {collective.reason, 0, 0});
  ++found->count;
  found->exposed_us += collective.exposed_us;
  std::stable_sort(reasons.begin(), reasons.end(), [](auto& a, auto& b) { return a.exposed_us > b.exposed_us; });
}

std::string OverlapRow::reason_text() const {
  if (reasons.size() == 1 && reasons[0].count == count) return to_string(reasons[0].reason);
  std::string text;
  for (const Reason& reason : reasons) {
    text += fmt::format("{}{} ({} of {})", text.empty() ? "" : ", ", to_string(reason.reason), reason.count, count);
  }
  return text;
}

std::string OverlapRow::main_reason() const {
  if (reasons.empty()) return "";
  return std::string(reasons.size() > 1 ? "mostly " : "") + to_string(reasons[0].reason);
}

OverlapSummary summarize(const std::vector<CollectiveTiming>& collectives) {
  OverlapSummary summary;
  summary.forward.pass = summary.hideable_forward.pass = "forward";
  summary.backward.pass = summary.hideable_backward.pass = "backward";
  summary.total.pass = summary.hideable_total.pass = "total";
  std::set<int> ranks;
  for (const CollectiveTiming& collective : collectives) {
    ranks.insert(collective.rank);
    auto kind = std::find_if(summary.kinds.begin(), summary.kinds.end(), [&](const OverlapRow& row) {
      return row.stage == collective.stage && row.pass == collective.pass;
    });
    if (kind == summary.kinds.end()) {
      kind = summary.kinds.insert(kind, {.stage = collective.stage, .pass = collective.pass, .reasons = {}});
    }
    kind->add(collective);
    const bool is_forward = collective.pass == "fwd";
    const bool is_backward = collective.pass == "bwd" || collective.pass == "rec";
    if (is_forward) summary.forward.add(collective);
    if (is_backward) summary.backward.add(collective);
    summary.total.add(collective);
    if (!collective.hideable) continue;
    if (is_forward) summary.hideable_forward.add(collective);
    if (is_backward) summary.hideable_backward.add(collective);
    summary.hideable_total.add(collective);
  }
  summary.num_ranks = static_cast<int>(ranks.size());
  return summary;
}

Table overlap_table(const OverlapSummary& summary, int num_steps) {
  if (num_steps < 1) fail("an overlap table of {} steps; there must be at least one", num_steps);
  const double parts = static_cast<double>(num_steps) * std::max(1, summary.num_ranks);
  Table table{{"collective", "pass", "count", "duration", "exposed", "hidden", "reason where exposed"}, {}, ""};
  const auto add = [&](const OverlapRow& row, const std::string& name) {
    table.rows.push_back({name, row.pass, fmt::format("{:.6g}", row.count / parts), format_us(row.duration_us / parts),
                          format_us(row.exposed_us / parts), fmt::format("{:.1f} %", 100 * row.hidden()),
                          row.reason_text()});
  };
  for (const OverlapRow& row : summary.kinds) add(row, row.stage);
  table.rows.emplace_back();
  for (const OverlapRow* row : {&summary.hideable_forward, &summary.hideable_backward, &summary.hideable_total}) {
    add(*row, "hideable");
  }
  table.rows.emplace_back();
  for (const OverlapRow* row : {&summary.forward, &summary.backward, &summary.total}) add(*row, "all");
  table.note = fmt::format(
      "Sums per rank and step (means over {} rank{} and {} step{}). Exposed: the compute lane stood waiting; hidden = "
      "1 - "
      "exposed / duration. Hideable: without collectives that no order can hide.",
      summary.num_ranks, summary.num_ranks == 1 ? "" : "s", num_steps, num_steps == 1 ? "" : "s");
  return table;
}

std::string render_text(const OverlapSummary& summary, int num_steps) {
  return render_text(overlap_table(summary, num_steps));
}

}  // namespace farskip
