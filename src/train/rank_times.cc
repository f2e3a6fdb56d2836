#include "train/rank_times.h"

#include <algorithm>

#include "base/error.h"
#include "base/process_memory.h"
#include "base/stats.h"

namespace farskip {

double compute_ms(const StepResult& step) {
  double waited_us = 0;
  for (const CollectiveReport& report : step.reports) waited_us += report.waited_us;
  return (step.end_us - step.begin_us - waited_us) / 1e3;
}

std::string Straggler::to_string() const {
  return fmt::format("rank {} computes {:.1f} ms a step, {:.0f} % more than the others ({:.1f} ms)", rank, ms,
                     100 * (ms / others_ms - 1), others_ms);
}

std::optional<Straggler> find_straggler(const std::vector<double>& ms_of_rank, double threshold) {
  if (ms_of_rank.size() < 2) return std::nullopt;
  const auto slowest = std::max_element(ms_of_rank.begin(), ms_of_rank.end());
  std::vector<double> others(ms_of_rank.begin(), slowest);
  others.insert(others.end(), slowest + 1, ms_of_rank.end());
  const double usual = median(others);
  if (!(*slowest > (1 + threshold) * usual)) return std::nullopt;
  return Straggler{static_cast<int>(slowest - ms_of_rank.begin()), *slowest, usual};
}

namespace {

/// A number of each rank.
std::vector<double> of_ranks(double own, Transport& world, const char* name) {
  at::Tensor all = at::full({1}, own, at::kDouble);
  if (world.size() > 1) all = world.all_gather(all, name).await();
  return {all.const_data_ptr<double>(), all.const_data_ptr<double>() + all.numel()};
}

}  // namespace

std::vector<double> RankTimes::gather(Transport& world) {
  FARSKIP_CHECK(!ms_.empty());
  const double own = median(ms_);
  ms_.clear();
  return of_ranks(own, world, "rank times");
}

std::vector<double> peak_memory_of_ranks(Transport& world) {
  return of_ranks(static_cast<double>(peak_resident_bytes()), world, "rank memory");
}

}  // namespace farskip
