#include "config/families.h"

#include <fmt/ranges.h>
#include <algorithm>

namespace farskip {
namespace {

Llama3Scaling read_llama3_scaling(const JsonReader& scaling) {
  Llama3Scaling llama3;
  llama3.factor = scaling.positive("factor", 0.0);
  llama3.low_freq_factor = scaling.positive("low_freq_factor", 0.0);
  llama3.high_freq_factor = scaling.positive("high_freq_factor", 0.0);
  llama3.original_max_position_embeddings = scaling.integer("original_max_position_embeddings");
  if (llama3.high_freq_factor < llama3.low_freq_factor) {
    scaling.refuse("high_freq_factor",
                   fmt::format("at least low_freq_factor = {} was expected", llama3.low_freq_factor));
  }
  return llama3;
}

/// Reads rope_theta and rope_scaling, or transformers 5's rope_parameters which holds both.
RotaryConfig read_rotary(const JsonReader& config, const Family& family, const ModelConfig& model, bool interleaved) {
  const bool joined = config.has("rope_parameters");
  RotaryConfig rotary{.theta = family.rope_theta, .interleaved = interleaved};
  rotary.theta = (joined ? config.object("rope_parameters") : config).positive("rope_theta", family.rope_theta);
  const char* key = joined ? "rope_parameters" : "rope_scaling";
  if (!config.has(key)) return rotary;
  const JsonReader scaling = config.object(key);
  const std::string type = scaling.text("rope_type", scaling.text("type", "default"));
  if (type == "default") return rotary;
  if (type == "llama3") {
    rotary.llama3 = read_llama3_scaling(scaling);
    return rotary;
  }
  if (type != "yarn") {
    scaling.refuse(
        fmt::format("rotary scaling \"{}\" is not supported; only \"yarn\", \"llama3\" and \"default\" are", type));
  }
  scaling.require("attention_factor", nullptr, "a factor of its own for cos and sin is not supported");
  scaling.require("truncate", true, "untruncated correction ranges are not supported");
  Yarn yarn;
  yarn.factor = scaling.positive("factor", 0.0);
  yarn.beta_fast = scaling.positive("beta_fast", yarn.beta_fast);
  yarn.beta_slow = scaling.positive("beta_slow", yarn.beta_slow);
  yarn.mscale = scaling.number("mscale", yarn.mscale);
  yarn.mscale_all_dim = scaling.number("mscale_all_dim", yarn.mscale_all_dim);
  yarn.original_max_position_embeddings =
      scaling.integer("original_max_position_embeddings", 1, model.max_position_embeddings);
  rotary.yarn = yarn;
  return rotary;
}

AttentionConfig read_mla(const JsonReader& config) {
  AttentionConfig attention;
  attention.kind = AttentionKind::mla;
  attention.num_heads = attention.num_kv_heads = config.integer("num_attention_heads");
  config.require("num_key_value_heads", attention.num_heads,
                 "latent attention has one key and value head per query head");
  attention.q_lora_rank = config.integer_or_null("q_lora_rank");
  attention.kv_lora_rank = config.integer("kv_lora_rank");
  attention.qk_nope_head_dim = config.integer("qk_nope_head_dim");
  attention.qk_rope_head_dim = config.integer("qk_rope_head_dim");
  attention.v_head_dim = config.integer("v_head_dim");
  attention.bias = config.flag("attention_bias", false);
  return attention;
}

/// `own_head_dim`: the family has a key head_dim that may differ from hidden_size / num_attention_heads.
AttentionConfig read_gqa(const JsonReader& config, const Family& family, const ModelConfig& model, bool own_head_dim,
                         bool interleaved = false) {
  AttentionConfig attention;
  attention.kind = AttentionKind::gqa;
  attention.num_heads = config.integer("num_attention_heads");
  const int64_t num_kv_heads = config.integer_or_null("num_key_value_heads");
  attention.num_kv_heads = num_kv_heads ? num_kv_heads : attention.num_heads;
  if (attention.num_heads % attention.num_kv_heads != 0) {
    config.refuse("num_key_value_heads", fmt::format("it must divide num_attention_heads = {}", attention.num_heads));
  }
  if (own_head_dim && config.has("head_dim")) {
    attention.v_head_dim = config.integer("head_dim");
  } else if (model.hidden_size % attention.num_heads == 0) {
    attention.v_head_dim = model.hidden_size / attention.num_heads;
  } else {
    config.refuse("num_attention_heads", fmt::format("it must divide hidden_size = {}", model.hidden_size));
  }
  attention.qk_rope_head_dim = attention.v_head_dim;
  attention.rotary = read_rotary(config, family, model, interleaved);
  config.require("partial_rotary_factor", 1.0, "rotating a part of each head is not supported");
  return attention;
}

/// Softmax over all experts, the best top_k; `normalize` divides the chosen weights by their sum.
RouterConfig softmax_router(bool normalize) {
  RouterConfig router;
  router.normalize = normalize;
  return router;
}

/// The keys of DeepSeek's feed-forward that V2 and V3 share. `first_dense`: default of first_k_dense_replace.
void read_deepseek_experts(const JsonReader& config, int64_t first_dense, ModelConfig& model) {
  model.intermediate_size = config.integer("intermediate_size");
  model.moe_intermediate_size = config.integer("moe_intermediate_size");
  model.shared_intermediate_size = model.moe_intermediate_size * config.integer_or_null("n_shared_experts");
  model.num_experts = config.integer("n_routed_experts");
  // DeepSeek's auxiliary loss is the one per sequence only where seq_aux says so.
  model.aux_loss_alpha = config.flag("seq_aux", true) ? config.number("aux_loss_alpha", 0.0) : 0.0;
  config.require("mlp_bias", false, "biases in feed-forwards are not supported");
  const int64_t num_dense = config.integer("first_k_dense_replace", 0, first_dense);
  const int64_t every = config.integer("moe_layer_freq", 1, 1);
  for (int64_t k = 0; k < model.num_layers(); ++k) {
    model.layers[k] = k >= num_dense && k % every == 0 ? LayerKind::moe : LayerKind::dense;
  }
}

void set_groups(int64_t num_groups, int64_t topk_groups, GroupScore score, RouterConfig& router) {
  if (num_groups == 1) return;  // one group limits nothing
  router.num_groups = num_groups;
  router.topk_groups = topk_groups;
  router.group_score = score;
}

/// DeepSeek-V2, V2-Lite.
void read_deepseek_v2(const JsonReader& config, const Family& family, ModelConfig& model) {
  model.attention = read_mla(config);
  model.attention.rotary = read_rotary(config, family, model, /*interleaved=*/true);
  read_deepseek_experts(config, /*first_dense=*/0, model);
  config.require("scoring_func", "softmax", "DeepSeek-V2's router is a softmax");
  config.require("norm_topk_prob", false, "the public codes disagree on what normalised weights mean in DeepSeek-V2");
  model.router = softmax_router(/*normalize=*/false);
  model.router.scaling = config.positive("routed_scaling_factor", 1.0);
  const std::string method = config.text("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    set_groups(config.integer("n_group"), config.integer("topk_group"), GroupScore::max, model.router);
  } else if (method != "greedy") {
    config.refuse("topk_method", "\"greedy\" or \"group_limited_greedy\" was expected");
  }
}

/// DeepSeek-V3, Moonlight, and Instella, which adds a gate to attention.
void read_deepseek_v3(const JsonReader& config, const Family& family, ModelConfig& model) {
  model.attention = read_mla(config);
  model.attention.rotary = read_rotary(config, family, model, config.flag("rope_interleave", true));
  model.attention.gated = config.flag("gated_attention", false);
  read_deepseek_experts(config, /*first_dense=*/3, model);
  model.num_nextn_predict_layers = config.integer("num_nextn_predict_layers", 0, 0);
  config.require("scoring_func", "sigmoid", "DeepSeek-V3's router is a sigmoid");
  config.require("topk_method", "noaux_tc", "DeepSeek-V3's router chooses by biased scores");
  model.router.scoring = Scoring::sigmoid;
  model.router.correction_bias = true;
  model.router.normalize = config.flag("norm_topk_prob", true);
  model.router.scaling = config.positive("routed_scaling_factor", 2.5);
  set_groups(config.integer("n_group", 1, 8), config.integer("topk_group", 1, 4), GroupScore::top2_sum, model.router);
}

void read_qwen3_moe(const JsonReader& config, const Family& family, ModelConfig& model) {
  model.attention = read_gqa(config, family, model, /*own_head_dim=*/true);
  model.attention.qk_norm = true;
  model.attention.bias = config.flag("attention_bias", false);
  config.require("use_sliding_window", false, "sliding-window attention is not supported");
  model.intermediate_size = config.integer("intermediate_size");
  model.moe_intermediate_size = config.integer("moe_intermediate_size");
  model.num_experts = config.integer("num_experts");
  model.router = softmax_router(config.flag("norm_topk_prob", false));
  const std::vector<int64_t> dense = config.integers("mlp_only_layers");
  const int64_t step = config.integer("decoder_sparse_step", 1, 1);
  for (int64_t k = 0; k < model.num_layers(); ++k) {
    const bool listed = std::find(dense.begin(), dense.end(), k) != dense.end();
    model.layers[k] = !listed && (k + 1) % step == 0 ? LayerKind::moe : LayerKind::dense;
  }
}

/// Mixtral and OLMoE: every layer is a MoE layer and intermediate_size is the width of one expert.
void read_uniform_experts(const JsonReader& config, const char* num_experts_key, ModelConfig& model) {
  model.intermediate_size = model.moe_intermediate_size = config.integer("intermediate_size");
  model.num_experts = config.integer(num_experts_key);
  std::fill(model.layers.begin(), model.layers.end(), LayerKind::moe);
}

void read_mixtral(const JsonReader& config, const Family& family, ModelConfig& model) {
  model.attention = read_gqa(config, family, model, /*own_head_dim=*/true);
  if (config.has("sliding_window"))
    config.refuse("sliding_window", "sliding-window attention is not supported; null was expected");
  read_uniform_experts(config, "num_local_experts", model);
  model.router = softmax_router(/*normalize=*/true);
}

void read_olmoe(const JsonReader& config, const Family& family, ModelConfig& model) {
  model.attention = read_gqa(config, family, model, /*own_head_dim=*/false);
  model.attention.qk_norm_all_heads = true;
  model.attention.bias = config.flag("attention_bias", false);
  if (config.has("clip_qkv")) config.refuse("clip_qkv", "clipping of q, k and v is not supported; null was expected");
  read_uniform_experts(config, "num_experts", model);
  model.router = softmax_router(config.flag("norm_topk_prob", false));
}

/// Which layers of Llama-4 rotate (no_rope_layers says 1 where they do), and which attend to their chunk alone.
std::vector<LayerAttention> read_layer_attention(const JsonReader& config, int64_t num_layers) {
  std::vector<LayerAttention> layers(num_layers);
  const std::vector<int64_t> rotated = config.integers("no_rope_layers");
  const std::vector<std::string> types = config.texts("layer_types");
  const int64_t interval = config.integer("no_rope_layer_interval", 1, 4);
  const int64_t chunk = config.integer("attention_chunk_size", 1, 8192);
  const auto check = [&](const char* key, size_t size) {
    if (size > 0 && static_cast<int64_t>(size) < num_layers)
      config.refuse(key, fmt::format("an entry for each of {} layers was expected", num_layers));
  };
  check("no_rope_layers", rotated.size());
  check("layer_types", types.size());
  for (int64_t k = 0; k < num_layers; ++k) {
    layers[k].rotary = rotated.empty() ? (k + 1) % interval != 0 : rotated[k] != 0;
    const bool chunked = types.empty() ? layers[k].rotary : types[k] == "chunked_attention";
    if (!types.empty() && !chunked && types[k] != "full_attention")
      config.refuse("layer_types", "\"chunked_attention\" or \"full_attention\" was expected for each layer");
    layers[k].chunk = chunked ? chunk : 0;
  }
  return layers;
}

/// Scout, Maverick, and their text models.
void read_llama4(const JsonReader& config, const Family& family, ModelConfig& model) {
  config.integer("head_dim");  // no guess
  model.attention = read_gqa(config, family, model, /*own_head_dim=*/true, /*interleaved=*/true);
  model.attention.layers = read_layer_attention(config, model.num_layers());
  model.attention.qk_l2_norm = config.flag("use_qk_norm", true);
  config.require("attention_bias", false, "Llama-4's projections have no biases");
  if (config.flag_or_number("attn_temperature_tuning", true)) {
    model.attention.rotary.temperature =
        QueryTemperature{config.positive("floor_scale", 8192), config.number("attn_scale", 0.1)};
  }
  model.intermediate_size = config.integer("intermediate_size_mlp");
  model.moe_intermediate_size = model.shared_intermediate_size = config.integer("intermediate_size");
  model.num_experts = config.integer("num_local_experts");
  const int64_t step = config.integer("interleave_moe_layer_step", 1, 1);
  const std::vector<int64_t> listed = config.integers("moe_layers");
  for (int64_t k = 0; k < model.num_layers(); ++k) {
    const bool moe =
        config.has("moe_layers") ? std::find(listed.begin(), listed.end(), k) != listed.end() : (k + 1) % step == 0;
    model.layers[k] = moe ? LayerKind::moe : LayerKind::dense;
  }
  model.router.scoring = Scoring::sigmoid;
  model.router.by_logits = true;
  model.router.weigh_input = true;
}

// Where `architectures` is absent, the first row with the model_type is taken.
constexpr Family families[] = {
    {"DeepseekV2ForCausalLM", "deepseek_v2", 1e-6, 1e4, 2048, nullptr, read_deepseek_v2},
    {"DeepseekV3ForCausalLM", "deepseek_v3", 1e-6, 1e4, 4096, nullptr, read_deepseek_v3},
    {"InstellaMoEForCausalLM", "deepseek_v3", 1e-6, 1e4, 4096, nullptr, read_deepseek_v3},
    {"Qwen3MoeForCausalLM", "qwen3_moe", 1e-6, 1e4, 32768, nullptr, read_qwen3_moe},
    {"MixtralForCausalLM", "mixtral", 1e-5, 1e6, 131072, nullptr, read_mixtral},
    {"OlmoeForCausalLM", "olmoe", 1e-5, 1e4, 2048, nullptr, read_olmoe},
    {"Llama4ForCausalLM", "llama4_text", 1e-5, 5e5, 131072, nullptr, read_llama4},
    {"Llama4ForConditionalGeneration", "llama4", 1e-5, 5e5, 131072, "text_config", read_llama4},
};

}  // namespace

const Family& find_family(const JsonReader& config, const std::string& architecture, const std::string& model_type) {
  std::vector<std::string> names;
  for (const Family& family : families) {
    if (architecture.empty() ? model_type == family.model_type : architecture == family.architecture) return family;
    names.push_back(family.architecture);
  }
  config.refuse(fmt::format("the model family {} \"{}\" is not supported; supported are {}",
                            architecture.empty() ? "model_type" : "architectures[0]",
                            architecture.empty() ? model_type : architecture, fmt::join(names, ", ")));
}

}  // namespace farskip
