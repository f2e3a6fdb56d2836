#pragma once
// How long each rank computes, to find the one that all others wait for; how much memory each needs.

#include <optional>
#include <string>
#include <vector>

#include "exec/executor.h"

namespace farskip {

/// Milliseconds of a step in which this rank did not wait for a collective or for a later rank.
double compute_ms(const StepResult& step);

struct Straggler {
  int rank = 0;
  double ms = 0;
  double others_ms = 0;  ///< median of the other ranks

  /// "rank 3 computes 118.2 ms a step, 12 % more than the others (105.5 ms)".
  std::string to_string() const;
};

/// The slowest rank, if it computes more than 1 + `threshold` times as long as the median of all others.
std::optional<Straggler> find_straggler(const std::vector<double>& ms_of_rank, double threshold = 0.05);

class RankTimes {
 public:
  void add(const StepResult& step) { ms_.push_back(compute_ms(step)); }
  /// Of each rank the median of the steps added since the last call, in ms. Called by all ranks, each having added at
  /// least one.
  std::vector<double> gather(Transport& world);

 private:
  std::vector<double> ms_;
};

/// The most that each rank's process has had in memory, in bytes. Ranks that are threads of one process share it.
/// Called by all ranks.
std::vector<double> peak_memory_of_ranks(Transport& world);

}  // namespace farskip
