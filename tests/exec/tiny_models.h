#pragma once
// Small models that differ in what the layer can have, for tests of execution: configuration, weights and a batch.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <memory>
#include <string>
#include <vector>

#include "layer/connectivity.h"
#include "model/initialize.h"
#include "model/parameter_set.h"
#include "model/stage_math.h"
#include "nn/loss.h"

namespace farskip::testing {

enum class TinyModel {
  mla,                 ///< latent attention, shared experts, sigmoid router with bias; the first layer dense
  mla_q_lora,          ///< the same with a query LoRA and groups of experts
  mla_gated,           ///< the same as `mla` with gated attention (Instella)
  gqa_without_shared,  ///< grouped-query attention with q/k norms, softmax router, no shared experts, all layers MoE
  dense_after_moe,     ///< `mla` with dense layers first, in the middle and last
  unlike_layers,       ///< Llama-4: chunks, layers without rotation, one expert that weighs its input, stacked experts
};

inline const std::vector<TinyModel> tiny_models = {TinyModel::mla,
                                                   TinyModel::mla_q_lora,
                                                   TinyModel::mla_gated,
                                                   TinyModel::gqa_without_shared,
                                                   TinyModel::dense_after_moe,
                                                   TinyModel::unlike_layers};

inline std::string to_string(TinyModel model) {
  const char* names[] = {"mla", "mla_q_lora", "mla_gated", "gqa_without_shared", "dense_after_moe", "unlike_layers"};
  return names[static_cast<size_t>(model)];
}

/// 4 layers (dense_after_moe: 5), 8 experts of which 2 are chosen, hidden size 32, 48 tokens in the vocabulary.
inline ModelConfig tiny_config(TinyModel model) {
  using enum LayerKind;
  const bool unlike = model == TinyModel::unlike_layers, gqa = unlike || model == TinyModel::gqa_without_shared;
  ModelConfig config;
  config.architecture = unlike ? "Llama4ForCausalLM" : gqa ? "Qwen3MoeForCausalLM" : "DeepseekV3ForCausalLM";
  config.model_type = unlike ? "llama4_text" : gqa ? "qwen3_moe" : "deepseek_v3";
  config.vocab_size = 48;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.moe_intermediate_size = 16;
  config.shared_intermediate_size = gqa && !unlike ? 0 : 16;
  config.num_experts = 8;
  config.top_k = 2;
  config.max_position_embeddings = 64;
  AttentionConfig& attention = config.attention;
  attention.num_heads = 4;
  if (gqa) {
    attention.kind = AttentionKind::gqa;
    attention.num_kv_heads = 2;
    attention.qk_rope_head_dim = attention.v_head_dim = 8;
    attention.qk_norm = config.router.normalize = !unlike;
  } else {
    attention.kind = AttentionKind::mla;
    attention.num_kv_heads = 4;
    attention.q_lora_rank = model == TinyModel::mla_q_lora ? 12 : 0;
    attention.kv_lora_rank = 16;
    attention.qk_nope_head_dim = 8;
    attention.qk_rope_head_dim = 4;
    attention.v_head_dim = 8;
    attention.gated = model == TinyModel::mla_gated;
    attention.rotary.interleaved = true;
    config.router.scoring = Scoring::sigmoid;
    config.router.correction_bias = true;
    config.router.normalize = true;
    config.router.scaling = 1.5;
  }
  if (model == TinyModel::mla_q_lora) {
    config.router.num_groups = 4;
    config.router.topk_groups = 2;
    config.router.group_score = GroupScore::top2_sum;
  }
  config.layers = {dense, moe, moe, moe};
  if (gqa) config.layers[0] = moe;
  if (unlike) {
    config.top_k = 1;
    config.router = {.scoring = Scoring::sigmoid, .by_logits = true, .weigh_input = true};
    config.layers = {dense, moe, dense, moe};
    attention.layers = {{true, 4}, {false, 0}, {true, 4}, {false, 6}};
    attention.qk_l2_norm = attention.rotary.interleaved = true;
    attention.rotary.temperature = QueryTemperature{.floor = 3, .scale = 0.4};
  }
  if (model == TinyModel::dense_after_moe) config.layers = {dense, moe, dense, moe, dense};
  return config;
}

/// The connectivities that the plain model knows, as Connectivity spells them.
inline const std::vector<std::string> plain_connectivities = {"standard", "farskip", "attn-only",
                                                              "mlp-only", "last=2",  "layers=1-2"};

/// Weights drawn from `seed`, larger than for training so that attention and routing are decisive; the same values on
/// any number of expert ranks.
inline std::unique_ptr<ParameterSet> tiny_parameters(const ModelConfig& config, const ParameterOptions& options = {},
                                                     uint64_t seed = 1) {
  auto set = std::make_unique<ParameterSet>(std::make_shared<const ParameterTable>(config), options);
  initialize(*set, {seed, 0.3});
  set->update_values();
  return set;
}

/// [num_sequences, length] tokens and their successors, of which the last is ignored. The loss is a mean over
/// `num_shares` such batches (microbatches times ranks).
inline Batch tiny_batch(const ModelConfig& config, int64_t num_sequences, int64_t length, uint64_t seed = 1,
                        int64_t num_shares = 1) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  Batch batch;
  batch.tokens = at::randint(config.vocab_size, {num_sequences, length}, generator, at::kLong);
  batch.targets =
      at::cat({batch.tokens.narrow(1, 1, length - 1), at::full({num_sequences, 1}, nn::ignored_target, at::kLong)}, 1);
  batch.denominator = static_cast<double>(num_sequences * (length - 1) * num_shares);
  return batch;
}

}  // namespace farskip::testing
