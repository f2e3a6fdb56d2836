#pragma once
// The weights one rank holds, as the math sees them. Names and shapes of the tensors in a checkpoint are declared in
// model/parameters; here they only have a place. Legend: D hidden size, H heads, F feed-forward width, E experts held
// by this rank, V vocabulary.

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

namespace farskip::nn {

struct PreparedWeight;

/// One parameter: its value in the compute dtype and its index in the model's parameter table (-1: none).
struct Param {
  at::Tensor value;
  int id = -1;
  /// For inference: products with it go through this, and there is no value (nn/inference_weight.h).
  std::shared_ptr<const PreparedWeight> prepared = nullptr;
  bool defined() const { return value.defined() || prepared; }
};

/// What a product with a weight reads, and what the weight's gradient reads once more: kept until then, or made again.
struct Input {
  at::Tensor value;
  std::function<at::Tensor()> again;  ///< gives the same bits; empty: the value is kept
  Input(at::Tensor v, std::function<at::Tensor()> a = {}) : value(std::move(v)), again(std::move(a)) {}  // NOLINT
};

struct AttentionWeights {
  Param q_proj;              ///< [H*qk, D]; absent with a q-LoRA
  Param q_a_proj;            ///< [q_rank, D]
  Param q_a_layernorm;       ///< [q_rank]
  Param q_b_proj;            ///< [H*qk, q_rank]
  Param kv_a_proj_with_mqa;  ///< [kv_rank + rope, D]
  Param kv_a_layernorm;      ///< [kv_rank]
  Param kv_b_proj;           ///< [H*(nope + v), kv_rank]
  Param k_proj, v_proj;      ///< grouped-query attention: [KV*qk, D], [KV*v, D]
  Param q_norm, k_norm;      ///< [qk] (Qwen3) or [H*qk], [KV*qk] (OLMoE)
  Param gate_proj;           ///< [H*v, D] (Instella)
  Param o_proj;              ///< [D, H*v]
  /// For inference, see compressed_qkv(): of each head kv_b_proj's keys transposed, [H, kv_rank, nope], and its values,
  /// [H, v, kv_rank].
  Param key_up, value_up;
  Param q_bias, q_a_bias, kv_a_bias, k_bias, v_bias, o_bias;
};

/// SwiGLU: down(silu(gate(x)) * up(x)); gate above up in one tensor.
struct FeedForwardWeights {
  Param gate_up;  ///< [2F, D]
  Param down;     ///< [D, F]
};

struct MoeWeights {
  Param router;                ///< [num_experts, D], kept in fp32
  at::Tensor correction_bias;  ///< [num_experts] fp32; not a parameter; undefined where the family has none
  Param gate_up;               ///< [E, 2F, D]
  Param down;                  ///< [E, D, F]
  FeedForwardWeights shared;   ///< undefined where the model has none
};

struct LayerWeights {
  Param input_layernorm;  ///< [D]
  AttentionWeights attention;
  Param post_attention_layernorm;  ///< [D]
  FeedForwardWeights dense;        ///< dense layers
  MoeWeights moe;                  ///< MoE layers
};

struct ModelWeights {
  Param embed_tokens;  ///< [V, D]
  std::vector<LayerWeights> layers;
  Param norm;     ///< [D]
  Param lm_head;  ///< [V, D]; the same Param as embed_tokens where the embeddings are tied
};

/// Weight gradients that a backward segment has left for later. A stage's backward pushes what its parameters'
/// gradients need; the stage's weight-gradient node computes them. Not thread-safe: one queue belongs to one segment.
class WeightGradQueue {
 public:
  /// `compute` returns the gradient, in the shape of the parameter.
  void push(int param, std::function<at::Tensor()> compute) { entries_.push_back({param, std::move(compute)}); }
  /// Computes the gradients in the order they were pushed, hands each to `sink`, and forgets them.
  template <typename Sink>
  void drain(Sink&& sink) {
    for (auto& entry : entries_) {
      sink(entry.param, entry.compute());
      entry.compute = nullptr;  // frees the saved activations before the next product
    }
    entries_.clear();
  }
  bool empty() const { return entries_.empty(); }
  /// Gradients of parameters with unwanted(id) are not computed; what is kept for them is let go.
  template <typename Predicate>
  void forget(Predicate&& unwanted) {
    std::erase_if(entries_, [&](const Entry& entry) { return unwanted(entry.param); });
  }
  /// A function's place, for autograd Functions, which can hold a number but no function. -1 for none.
  int64_t keep(const std::function<at::Tensor()>& again) {
    if (!again) return -1;
    kept_.push_back(again);
    return static_cast<int64_t>(kept_.size()) - 1;
  }
  std::function<at::Tensor()> take(int64_t place) { return std::move(kept_.at(static_cast<size_t>(place))); }

 private:
  struct Entry {
    int param;
    std::function<at::Tensor()> compute;
  };
  std::vector<Entry> entries_;
  std::vector<std::function<at::Tensor()>> kept_;
};

}  // namespace farskip::nn
