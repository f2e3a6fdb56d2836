#pragma once
// What each compute stage does: the one place where stages of the graph meet the math. No ranks, no order, no autograd
// bookkeeping. B sequences, S positions, T = B*S tokens, D hidden size, K experts per token, V vocabulary.

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "config/model_config.h"
#include "layer/stage_graph.h"
#include "nn/attention.h"
#include "nn/distill_loss.h"
#include "nn/kv_cache.h"
#include "nn/permute.h"
#include "nn/rotary.h"
#include "nn/router.h"
#include "nn/weights.h"

namespace farskip {

/// One microbatch of one rank.
struct Batch {
  at::Tensor tokens;       ///< [B, S] int64
  at::Tensor targets;      ///< [B, S] int64; nn::ignored_target counts for nothing
  double denominator = 1;  ///< the loss is the sum over targets divided by this, so that ranks and microbatches add up
  double share = 1;  ///< this batch's part of the step's sequences: the weight of auxiliary losses, which are means
  at::Tensor positions = {};     ///< [B, S] int64; undefined: 0 .. S-1 in every sequence
  nn::Documents documents = {};  ///< attention stays inside them
  /// Inference: what the sequences have seen, of which the tokens [1, T] are new positions of several; needs positions.
  nn::CacheStep* cache = nullptr;
  at::Tensor head_rows = {};  ///< [n] int64, B = 1: tokens whose logits are wanted; undefined: all
  /// Inference where tokens are gathered (B = 1): how many each rank has; this rank's are T.
  std::vector<int64_t> rank_tokens = {};
  /// Per layer [T, K] int64: the experts of MoE layers, chosen by somebody else. Empty: routers choose.
  std::vector<at::Tensor> experts = {};

  /// Distillation: what the teacher says of these tokens, rows [B * S]; undefined: the graph has its logits.
  nn::TeacherTargets teacher = {};
  double hidden_weight = 0;  ///< of the mean over layers of the streams' distance, with GraphOptions::match_streams
  double router_weight = 0;  ///< of the mean over MoE layers of the gates' KL, with GraphOptions::match_routes

  at::Tensor experts_of(int64_t layer) const { return experts.empty() ? at::Tensor() : experts.at(layer); }
};

/// What a MoE layer's router decided for one microbatch.
struct LayerRouting {
  nn::RoutePlan plan;
  at::Tensor load;      ///< [num_experts] int64: rows per expert, of this rank's tokens
  at::Tensor aux_loss;  ///< fp32 scalar, unscaled; undefined without an auxiliary loss; a global one: from backward on
  /// [num_experts] fp64: load of all ranks and of the microbatches so far, from the expert_load stage on; only with a
  /// global auxiliary loss.
  at::Tensor global_load;
  at::Tensor z_loss;       ///< the same of the z-loss
  at::Tensor weights;      ///< [T, num_experts] fp32; only where keep_routing_weights
  at::Tensor ids;          ///< [T, K] int64: the experts chosen; of teachers and students
  at::Tensor scores;       ///< [T, num_experts] fp32: of a teacher whose decisions are read
  at::Tensor router_loss;  ///< fp32 scalar, unweighted: KL of the gates over the loss's denominator
};

/// State of one microbatch while it is executed, beside the values of the graph.
struct Microbatch {
  Batch batch;
  std::vector<LayerRouting> routing;  ///< per layer
  nn::RotaryTable rotary = {};        ///< of the batch's positions; from the embed stage on
  /// Per layer: makes the feed-forward's input again, where it is not kept.
  std::map<int, std::function<at::Tensor()>> again = {};
  std::shared_ptr<Microbatch> teacher = nullptr;  ///< its pass over the same batch; null: none in this graph
  at::Tensor figures = {};      ///< fp64 [nn::num_distill_figures], from the loss of a distillation on
  at::Tensor hidden_loss = {};  ///< fp32 scalar, unweighted: mean over layers of the streams' distance
};

struct StageMathOptions {
  int64_t expert_ranks = 1;  ///< among which whole experts are divided
  Exchange exchange = Exchange::all_to_all;
  int64_t expert_rank = 0;                          ///< this one; needed where no rows are exchanged
  double aux_loss_alpha = 0;                        ///< auxiliary loss; 0: none
  nn::AuxScope aux_scope = nn::AuxScope::sequence;  ///< global: needs GraphOptions::expert_load
  double z_loss_coeff = 0;                          ///< z-loss of the router; 0: none
  bool keep_routing_weights = false;                ///< for verification
  bool recompute_norms = false;                     ///< see Recompute
  bool recompute_activations = false;
  bool distill = false;  ///< the loss is a distillation's; routes keep what they decide
  nn::DistillLossOptions distill_loss = {};
  bool keep_scores = false;  ///< of a teacher, for Batch::router_weight
};

int64_t num_moe_layers(const ModelConfig& model);

class StageMath {
 public:
  StageMath(const ModelConfig& config, nn::ModelWeights weights, int64_t max_positions, StageMathOptions options);

  /// Values that `node` writes, from those it reads, in the order of the graph. Weight gradients go to `queue`;
  /// nullptr: none are wanted. For view stages only the norm of view_ff is computed here: inputs = {the view}.
  std::vector<at::Tensor> forward(const Node& node, const std::vector<at::Tensor>& inputs, Microbatch& state,
                                  nn::WeightGradQueue* queue) const;

  const ModelConfig& config() const { return config_; }
  const nn::ModelWeights& weights() const { return weights_; }
  const StageMathOptions& options() const { return options_; }
  /// The dtype of activations.
  at::ScalarType dtype() const { return weights_.embed_tokens.value.scalar_type(); }

 private:
  std::vector<at::Tensor> route(const Node& node, const nn::Input& u_BSD, Microbatch& state,
                                nn::WeightGradQueue* queue) const;
  /// The loss against a teacher: in = {logits, its logits, distances of streams} or, with Batch::teacher, {logits}.
  at::Tensor distill_loss(const std::vector<at::Tensor>& in, Microbatch& state) const;
  /// Plans this rank's part of the experts' work on tokens that all ranks have.
  void plan_local(const Node& node, const at::Tensor& ids, Microbatch& state) const;

  ModelConfig config_;
  nn::ModelWeights weights_;
  nn::RotaryTable rotary_;
  StageMathOptions options_;
};

}  // namespace farskip
