// What a benchmark found, as JSON and as text.
#include "train/bench.h"

namespace farskip {
double BenchResult::waiting_hidden() const {
  return waited_blocking_ms > 0 ? 1 - waited_overlapped_ms / waited_blocking_ms : 0;
}

nlohmann::json BenchResult::to_json() const {
  using farskip::to_json;
  nlohmann::json json{{"schedule", schedule},
                      {"schedule_hash", fmt::format("{:016x}", schedule_hash)},
                      {"link", link},
                      {"rounds", num_rounds},
                      {"t_blocking", to_json(t_blocking_ms)},
                      {"t_overlapped", to_json(t_overlapped_ms)},
                      {"t_compute", to_json(t_compute_ms)},
                      {"t_comm", t_comm_ms},
                      {"bound", bound_ms},
                      {"saved", to_json(saved)},
                      {"efficiency", to_json(efficiency)},
                      {"speedup", to_json(speedup)},
                      {"share", share},
                      {"hidden_forward", to_json(hidden_forward)},
                      {"hidden_backward", to_json(hidden_backward)},
                      {"hidden_total", to_json(hidden_total)},
                      {"hidden_forward_mean", overlap.hideable_forward.hidden()},
                      {"hidden_backward_mean", overlap.hideable_backward.hidden()},
                      {"hidden_total_mean", overlap.hideable_total.hidden()},
                      {"hidden_forward_all_mean", overlap.forward.hidden()},
                      {"hidden_backward_all_mean", overlap.backward.hidden()},
                      {"hidden_total_all_mean", overlap.total.hidden()},
                      {"simulated_blocking", simulated_blocking_ms},
                      {"simulated_overlapped", simulated_overlapped_ms},
                      {"rank_skew", skew_ms},
                      {"waited_blocking", waited_blocking_ms},
                      {"waited_overlapped", waited_overlapped_ms},
                      {"waiting_hidden", waiting_hidden()},
                      {"cpu", cpu_ms},
                      {"transport_cpu", transport_cpu_ms},
                      {"unit", "ms"}};
  for (const auto& [name, ms] : candidates) json["candidates"][name] = ms;
  for (const auto& [stage, ms] : stage_ms) json["stages"][stage] = ms;
  json["matrix_peak_gflops"] = profile.peak / 1e9;
  json["matrix_utilization"] = profile.utilization();
  for (const auto& row : overlap.kinds) json["collectives"].push_back(to_json(row, num_rounds));
  for (const auto& row : simulated_overlap.kinds) json["simulated_collectives"].push_back(to_json(row, 1));
  return json;
}

std::string BenchResult::text() const {
  auto ms = [](const Estimate& e) { return to_text(e); };
  auto ratio = [](const Estimate& e) { return to_text(e, 3); };
  auto percent = [](const Estimate& e) {
    return fmt::format("{:.1f} % [{:.1f}, {:.1f}]", 100 * e.value, 100 * e.low, 100 * e.high);
  };
  auto means = [](const OverlapRow& hideable, const OverlapRow& all) {
    return fmt::format("of a step's hideable time; of all steps' {:.1f} %, of all collectives' {:.1f} %",
                       100 * hideable.hidden(), 100 * all.hidden());
  };
  Table table{{"figure", "value", "meaning"},
              {},
              fmt::format("{} interleaved rounds, medians with 95 % intervals; link {}; schedule {}", num_rounds, link,
                          schedule)};
  table.rows = {
      {"T_blocking", ms(t_blocking_ms), "ms a step, declaration order, every collective awaited at once"},
      {"T_overlapped", ms(t_overlapped_ms), "ms a step, this schedule"},
      {"T_compute", ms(t_compute_ms),
       link == "none" ? "ms a step, this schedule again (the network's time cannot be taken out)"
                      : "ms a step, this schedule, link time zero"},
      {"T_comm", fmt::format("{:.2f}", t_comm_ms),
       fmt::format("ms of link time a step: {:.3f} of the blocking step", share)},
      {"bound", fmt::format("{:.2f}", bound_ms), "ms, the best order the simulation finds"},
      {"saved", ratio(saved), "(blocking - overlapped) / (blocking - compute)"},
      {"efficiency", ratio(efficiency), "bound / overlapped"},
      {"speed-up", ratio(speedup), "blocking / overlapped"},
      {"hidden forward", percent(hidden_forward), means(overlap.hideable_forward, overlap.forward)},
      {"hidden backward", percent(hidden_backward), means(overlap.hideable_backward, overlap.backward)},
      {"hidden total", percent(hidden_total), means(overlap.hideable_total, overlap.total)},
      {"rank skew", fmt::format("{:.2f}", skew_ms), "ms of a step spent waiting for the other rank to launch"},
      {"waiting", fmt::format("{:.2f} -> {:.2f}", waited_blocking_ms, waited_overlapped_ms),
       fmt::format("ms a step, blocking -> overlapped, skew included; {:.1f} % of it hidden", 100 * waiting_hidden())},
      {"CPU time", fmt::format("{:.2f}", cpu_ms),
       fmt::format("ms of a rank in an overlapped step; {:.2f} of it in the transport's threads", transport_cpu_ms)}};
  return render_text(table) + "\n" + render_text(overlap, num_rounds) + "\nComputing, per rank and step:\n" +
         render_text(profile.table());
}

}  // namespace farskip
