#pragma once
// AdamW (arXiv 1711.05101) on the fp32 masters that this rank keeps, with clipping by global norm, as Megatron trains.

#include <vector>

#include "config/train_config.h"
#include "model/parameter_shards.h"

namespace farskip {

class AdamW {
 public:
  /// REQUIRES: `parameters` are frozen as `config` says (frozen_parameters()).
  AdamW(ParameterSet& parameters, ParameterShards& shards, const TrainConfig& config);

  /// Sum of squared gradients of what this rank keeps, fp64: of weights that all ranks hold, and of experts.
  struct SquaredNorms {
    double replicated = 0;
    double experts = 0;
  };
  SquaredNorms squared_norms();

  /// One update with the gradients of the shards, each divided by max(1, norm / clip_grad). Updates the values of what
  /// is not shared out. Rates are scaled by parameter_rates(). Weight decay is for all but biases
  /// and vectors (norms), as in Megatron; embedding and head have the decoupled_lr.
  void step(const StepRates& rates, double gradient_norm);

  /// As at the beginning of a run: no moments, no steps.
  void forget();

  int64_t num_steps() const { return num_steps_; }
  /// For restoring a run.
  void set_num_steps(int64_t num_steps) { num_steps_ = num_steps; }
  const ParameterShards& shards() const { return shards_; }
  /// The moments of a slice, fp32 [size].
  const at::Tensor& exp_avg(size_t slice) const { return exp_avgs_.at(slice); }
  const at::Tensor& exp_avg_sq(size_t slice) const { return exp_avg_sqs_.at(slice); }

 private:
  ParameterSet& parameters_;
  ParameterShards& shards_;
  double beta1_, beta2_, eps_, clip_;
  std::vector<double> factors_;                     ///< of learning rates, by parameter; 0: frozen
  std::vector<at::Tensor> exp_avgs_, exp_avg_sqs_;  ///< by slice
  int64_t num_steps_ = 0;
};

}  // namespace farskip
