#pragma once
// What a distillation is judged by: figures of a step, or of tokens held out, over all ranks.

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "model/stage_math.h"

namespace farskip {

/// Means over the tokens that count, the same on all ranks.
struct DistillStats {
  double kl = 0;                     ///< KL(teacher || student) at the recipe's temperature, nats a token
  double cross_entropy = 0;          ///< the student's, nats a token
  double teacher_cross_entropy = 0;  ///< NaN where the teacher's targets are sparse
  double top1 = 0;                   ///< share of tokens with the same likeliest successor
  double hidden = 0, router = 0;     ///< the further terms, without their weights; 0: not computed
  double num_tokens = 0;
  /// Router drift: per layer the share of tokens whose set of experts is not the teacher's at the same layer; negative
  /// for dense layers. Empty where the teacher's experts are not known (a cache).
  std::vector<double> drift;

  double worst_drift() const;
  double mean_drift() const;  ///< of the MoE layers
  nlohmann::json to_json() const;
};

/// Length of distill_sums().
int64_t num_distill_sums(const ModelConfig& model);
/// fp64 [num_distill_sums]: what this rank's microbatches add to the sums of all. REQUIRES: they have been computed.
at::Tensor distill_sums(const ModelConfig& model, const std::vector<Microbatch>& microbatches);
/// From the sums of all ranks. `experts_known`: see DistillStats::drift.
DistillStats distill_stats(const ModelConfig& model, const double* sums, bool experts_known);

}  // namespace farskip
