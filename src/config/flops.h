#pragma once
// Floating-point operations of the forward pass, per token: what the small presets keep in proportion to the real
// models, what `show` prints and what the cost model starts from.

#include <cstdint>
#include <string>

#include "config/model_config.h"

namespace farskip {

/// FLOPs of one token's forward pass, a multiply-add counted as 2. Matrix products only: norms, rotary embedding,
/// softmax, activations and the embedding look-up are left out.
struct TokenFlops {
  double attention_projections = 0;  ///< 2 per weight: q, k, v (latents included), gate, output
  double attention_core = 0;         ///< 2 * heads * (qk_head_dim + v_head_dim) per position attended to
  double router = 0;                 ///< 2 * D * E
  double shared = 0;                 ///< 6 * D * width of all shared experts
  double routed = 0;                 ///< 6 * D * F * top_k
  double dense = 0;                  ///< 6 * D * intermediate_size, in dense layers
  double head = 0;                   ///< 2 * D * V, once per model

  double attention() const { return attention_projections + attention_core; }
  double total() const { return attention() + router + shared + routed + dense + head; }
  TokenFlops& operator+=(const TokenFlops& other);
};

/// Positions that a token attends to on average in causal attention over a sequence: S / 2; within chunks of C
/// positions (0: the whole sequence) (n C^2 + r^2) / 2S for n chunks and r positions left.
double causal_context(int64_t seq_length, int64_t chunk = 0);

/// One layer of `kind`, with `context` positions attended to.
TokenFlops layer_flops(const ModelConfig& model, LayerKind kind, double context);

/// All layers and the head, for training or prefill at sequences of `seq_length`.
TokenFlops model_flops(const ModelConfig& model, int64_t seq_length);

/// How a MoE layer's work divides, with shared experts as the unit (routed experts where a model has no shared ones,
/// and then shared is 0), over all MoE layers; all 0 where there are none. A small preset keeps the ratios of the model
/// it stands for within 25 %, each counted at its own training length: 256 for the small presets, 4096 for the real
/// models.
struct FlopRatios {
  double attention = 0;
  double shared = 0;
  double routed = 0;
};
FlopRatios flop_ratios(const ModelConfig& model, int64_t seq_length);

/// The same as lines of text: FLOPs per token of each part with its share, and the ratios.
std::string describe_flops(const ModelConfig& model, int64_t seq_length);

}  // namespace farskip
