#pragma once
// AdamW (arXiv 1711.05101) on fp32 masters with clipping by global norm, as Megatron trains.

#include <vector>

#include "config/train_config.h"
#include "model/parameter_set.h"

namespace farskip {

class AdamW {
 public:
  AdamW(ParameterSet& parameters, const TrainConfig& config);

  /// Sum of squared gradients, fp64: of the weights that all ranks hold, and of this rank's experts.
  struct SquaredNorms {
    double replicated = 0;
    double experts = 0;
  };
  SquaredNorms squared_norms();

  /// One update with the gradients in main_grad, each divided by max(1, norm / clip_grad). Updates the values. Weight
  /// decay is for all but biases and vectors (norms), as in Megatron; embedding and head have the decoupled_lr.
  void step(const StepRates& rates, double gradient_norm);

  int64_t num_steps() const { return num_steps_; }
  /// For restoring a run.
  void set_num_steps(int64_t num_steps);
  /// The moments of a parameter, in the shape of its master.
  const at::Tensor& exp_avg(int id) const { return groups_[places_.at(id).first].exp_avgs[places_[id].second]; }
  const at::Tensor& exp_avg_sq(int id) const { return groups_[places_.at(id).first].exp_avg_sqs[places_[id].second]; }

 private:
  struct Group {
    bool decays;
    bool decoupled;  ///< embedding and head
    std::vector<int> ids;
    std::vector<at::Tensor> mains, exp_avgs, exp_avg_sqs, steps;
  };
  ParameterSet& parameters_;
  double beta1_, beta2_, eps_, clip_;
  std::vector<Group> groups_;
  std::vector<std::pair<size_t, size_t>> places_;  ///< by parameter: its group and its index there
  int64_t num_steps_ = 0;
};

}  // namespace farskip
