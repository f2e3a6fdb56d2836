#pragma once
// The gate: which experts a token visits, and with which weight. T tokens, E experts (of the whole model), K chosen.

#include <optional>

#include "config/model_config.h"
#include "nn/weights.h"

namespace farskip::nn {

struct Routing {
  at::Tensor ids;     ///< [T, K] int64, best first, or as given; among equal scores the lower id wins
  at::Tensor p;       ///< [T, K] fp32 weights, differentiable
  at::Tensor scores;  ///< [T, E] fp32 softmax or sigmoid of the logits, differentiable
  at::Tensor logits;  ///< [T, E] fp32, differentiable
};

/// x [T, D]; `router` [E, D] in fp32; `correction_bias` [E] or undefined. Logits are always taken in fp32. With groups,
/// only experts of the topk_groups best groups can be chosen; the bias and the groups take part in the choice only.
/// With config.force_balance token t visits experts t*K .. t*K + K-1 (modulo E) instead, weighed by their scores.
/// `given` [T, K] int64: experts that somebody else has chosen, in their place.
/// Families: see RouterConfig and docs of DeepSeek-V2/V3 (arXiv 2405.04434, 2412.19437).
Routing route(const Input& x, const Param& router, const at::Tensor& correction_bias, const RouterConfig& config,
              int64_t top_k, WeightGradQueue* queue, const at::Tensor& given = {});

/// [T, E]: the weight of every expert, 0 where not chosen. Not differentiable.
at::Tensor dense_weights(const Routing& routing, int64_t num_experts);

/// [E] int64: how many rows each expert gets from these ids.
at::Tensor expert_load(const at::Tensor& ids, int64_t num_experts);

/// Sequence auxiliary loss (DeepSeek-V3, eq. 17-20; DeepSeek-V2's expert-level form with softmax scores): the mean over
/// sequences of alpha * sum_i f_i P_i, where f_i = E / (K S) * rows of expert i in the sequence and P_i = mean over the
/// sequence of expert i's share of the token's scores. The T tokens are `num_sequences` sequences of equal length;
/// without tokens it is 0. All T tokens as one sequence: the loss of the Switch Transformer (arXiv 2101.03961, eq.
/// 4-6). Returns a differentiable fp32 scalar.
at::Tensor sequence_aux_loss(const Routing& routing, int64_t num_sequences, double alpha);

/// Over which tokens an auxiliary loss counts the rows of experts.
enum class AuxScope {
  sequence,    ///< each sequence
  microbatch,  ///< the microbatch of one rank
  global,      ///< all ranks, and the microbatches of the step so far
};

/// Global auxiliary loss (arXiv 2501.11873; Megatron's global_aux_loss): alpha * sum_i f_i P_i, where f_i = E * load_i
/// / sum(load) and P_i = mean over these T tokens of expert i's share of the token's scores. Attached to p like
/// attach_loss. `load_E` [E] fp64, the rows of each expert on all ranks, need not be known before backward, which reads
/// it, and writes the loss into the fp32 scalar `loss`. Without tokens there is none.
at::Tensor attach_global_loss(const at::Tensor& p, const Routing& routing, const at::Tensor& load_E,
                              const at::Tensor& loss, double alpha, double scale);

/// z-loss (ST-MoE, arXiv 2202.08906, eq. 5; Megatron's z_loss_func): coeff * mean over tokens of logsumexp(logits)^2,
/// 0 without tokens. Returns a differentiable fp32 scalar.
at::Tensor z_loss(const Routing& routing, double coeff);

/// Returns p unchanged; in backward adds `scale` times the gradient of `loss`, a scalar of the same graph, to whatever
/// arrives through p. So an auxiliary loss trains the router without being a root of the graph. `scale` is the weight
/// of `loss` in the loss of the step (1 / number of microbatches and ranks).
at::Tensor attach_loss(const at::Tensor& p, const at::Tensor& loss, double scale);

}  // namespace farskip::nn
