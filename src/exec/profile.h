#pragma once
// Cost tables from measured steps: times of stages in an ordinary step, the same on all ranks, and the link's own
// formula for collectives (a measured duration holds the skew between ranks and would not transfer to another order).

#include "exec/executor.h"
#include "sim/cost_model.h"
#include "transport/emulated_link.h"

namespace farskip {

class CostProfile {
 public:
  explicit CostProfile(const StageGraph& graph);

  /// Adds a step that was executed with spans recorded.
  void add(const StepResult& step);
  int num_steps() const { return num_steps_; }

  /// Collective over `world`: the mean of each stage's time over ranks and over the middle half of the steps by their
  /// computing time (means, since they add up to the step's, as medians do not; the middle half, since a step in which
  /// something else took the processor says nothing about stages). A collective costs what `link` takes for its bytes;
  /// without an emulated link, the median duration. What a rank computes itself to launch and finish a collective
  /// (packing, copies) is charged to the collective's first reader on the compute lane.
  CostTable table(const LinkSpec& link, Transport& world) const;

 private:
  const StageGraph& graph_;
  int num_steps_ = 0;
  std::vector<std::vector<double>> compute_us_, duration_us_;  ///< per node, one entry a step
  std::vector<double> total_us_;                               ///< computing time of all nodes, one entry a step
  std::vector<double> sent_, received_;                        ///< bytes per node, of the last step
};

}  // namespace farskip
