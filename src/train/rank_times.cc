#include "train/rank_times.h"

#include <algorithm>

#include "base/error.h"
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

std::vector<double> RankTimes::gather(Transport& world) {
  FARSKIP_CHECK(!ms_.empty());
  at::Tensor own = at::full({1}, median(ms_), at::kDouble);
  ms_.clear();
  const at::Tensor all = world.size() > 1 ? world.all_gather(own, "rank times").await() : own;
  return {all.const_data_ptr<double>(), all.const_data_ptr<double>() + all.numel()};
}

}  // namespace farskip
