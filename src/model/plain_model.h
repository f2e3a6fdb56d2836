#pragma once
// The same model written plainly, as a modelling file would: one rank, whole-graph autograd, no stages and no schedule.
// It is the independent check of the staged execution, which must give the same bits on one rank: loss and all
// gradients, fp32 and bf16. That needs two habits of the stage graph, nothing else: a stage reads a value through
// x.view_as(x) once, and sums are declared when their first reader needs them, attention's before the feed-forward's.

#include "config/model_config.h"
#include "layer/connectivity.h"
#include "model/parameter_set.h"
#include "model/stage_math.h"

namespace farskip {

struct PlainOptions {
  double aux_loss_alpha = 0;  ///< as in StageMathOptions
  nn::AuxScope aux_scope = nn::AuxScope::sequence;
  double z_loss_coeff = 0;
  /// For a global auxiliary loss: load of the step's earlier microbatches per layer, to which this one's is added.
  std::vector<at::Tensor>* global_load = nullptr;
};

struct PlainResult {
  at::Tensor loss;    ///< fp32 scalar; loss.backward() leaves gradients in the weights' .grad()
  at::Tensor logits;  ///< [B, S, V]
};

/// Runs the model on one batch. `weights` hold all experts; those that require gradients are differentiated by stock
/// operations. Throws Error for a connectivity beyond standard, FarSkip, attn-only and mlp-only of each layer.
PlainResult plain_forward(const ModelConfig& config, const Connectivity& connectivity, const nn::ModelWeights& weights,
                          const Batch& batch, const PlainOptions& options = {});

/// The weights of a set as leaves that require gradients: copies of the values, in their places.
nn::ModelWeights differentiable_copy(const ParameterSet& parameters);

/// The gradients those leaves have received, by parameter id, in the dtype of the value; undefined where none came.
std::vector<at::Tensor> gradients(const ParameterTable& table, nn::ModelWeights weights);

}  // namespace farskip
