#include "config/model_config.h"

#include <cmath>

#include "config/families.h"
#include "config/json_reader.h"

namespace farskip {
namespace {

void check_router(const JsonReader& config, const ModelConfig& model) {
  const RouterConfig& router = model.router;
  if (model.top_k > model.num_experts) {
    config.refuse("num_experts_per_tok", fmt::format("there are only {} experts", model.num_experts));
  }
  if (router.group_score == GroupScore::none) return;
  if (model.num_experts % router.num_groups != 0) {
    config.refuse("n_group", fmt::format("it must divide n_routed_experts = {}", model.num_experts));
  }
  const int64_t group_size = model.num_experts / router.num_groups;
  if (router.topk_groups > router.num_groups) {
    config.refuse("topk_group", fmt::format("there are only n_group = {} groups", router.num_groups));
  }
  if (router.topk_groups * group_size < model.top_k) {
    config.refuse("topk_group", fmt::format("{} groups of {} experts hold fewer than num_experts_per_tok = {}",
                                            router.topk_groups, group_size, model.top_k));
  }
  if (router.group_score == GroupScore::top2_sum && group_size < 2) {
    config.refuse("n_group", "a group is scored by its two best experts and needs at least 2 of them");
  }
}

int64_t feed_forward_weights(int64_t hidden, int64_t width) { return 3 * hidden * width; }

/// Elements of the norms and biases of one attention.
int64_t attention_vectors(const AttentionConfig& attention, int64_t hidden) {
  const int64_t q_rows = attention.num_heads * attention.qk_head_dim();
  const int64_t k_rows = attention.num_kv_heads * attention.qk_head_dim();
  int64_t count = 0;
  if (attention.kind == AttentionKind::mla) {
    count += attention.q_lora_rank + attention.kv_lora_rank;
    if (attention.bias) count += attention.q_lora_rank + attention.kv_lora_rank + attention.qk_rope_head_dim + hidden;
  } else if (attention.bias) {
    count += q_rows + k_rows + attention.num_kv_heads * attention.v_head_dim + hidden;
  }
  if (attention.qk_norm) count += 2 * attention.qk_head_dim();
  if (attention.qk_norm_all_heads) count += q_rows + k_rows;
  return count;
}

/// Parameters with `experts_counted` routed experts in each MoE layer.
int64_t count_parameters(const ModelConfig& model, int64_t experts_counted) {
  const int64_t hidden = model.hidden_size;
  int64_t total = (model.tie_word_embeddings ? 1 : 2) * model.vocab_size * hidden + hidden;
  for (LayerKind kind : model.layers) {
    total += 2 * hidden + model.attention.num_projection_weights(hidden) + attention_vectors(model.attention, hidden);
    if (kind == LayerKind::dense) {
      total += feed_forward_weights(hidden, model.intermediate_size);
    } else {
      total += hidden * model.num_experts + feed_forward_weights(hidden, model.shared_intermediate_size) +
               experts_counted * feed_forward_weights(hidden, model.moe_intermediate_size);
    }
  }
  return total;
}

std::string read_architecture(const JsonReader& reader, const nlohmann::json& config) {
  if (!reader.has("architectures")) return "";
  const nlohmann::json& names = config["architectures"];
  if (!names.is_array() || names.empty() || !names[0].is_string()) {
    reader.refuse("architectures", "a list with the name of one model class was expected");
  }
  return names[0].get<std::string>();
}

std::string without(const std::string& prefix, std::string name) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

/// The block size of DeepSeek's fp8 checkpoints; of other ways to quantise nothing is known, and loading refuses them.
std::vector<int64_t> read_weight_block(const JsonReader& config) {
  if (!config.has("quantization_config")) return {};
  const JsonReader quantization = config.object("quantization_config");
  if (quantization.text("quant_method", "") != "fp8" || !quantization.has("weight_block_size")) return {};
  quantization.require("fmt", "e4m3", "another form of 8-bit numbers");
  const std::vector<int64_t> block = quantization.integers("weight_block_size");
  if (block.size() != 2 || block[0] < 1 || block[1] < 1)
    quantization.refuse("weight_block_size", "two sizes [rows, columns] were expected");
  return block;
}

/// Connectivity is read from the top of config.json alone; where it stood elsewhere, another model would be computed.
void refuse_nested_connectivity(const JsonReader& text) {
  for (const char* key :
       {"farskip", "farskip_start_idx", "farskip_end_idx", "attn_only_farskip", "mlp_only_farskip", "farskip_skip"}) {
    if (text.has(key)) text.refuse(key, "it belongs to the top level of config.json");
  }
}

}  // namespace

double Yarn::attention_factor(double factor, double scale) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

double AttentionConfig::softmax_scale() const {
  const double factor = rotary.yarn ? Yarn::attention_factor(rotary.yarn->factor, rotary.yarn->mscale_all_dim) : 1.0;
  return factor * factor / std::sqrt(static_cast<double>(qk_head_dim()));
}

int64_t AttentionConfig::num_projection_weights(int64_t hidden) const {
  const int64_t qk = qk_head_dim();
  const int64_t out = num_heads * v_head_dim * hidden;
  const int64_t gate = gated ? out : 0;
  if (kind == AttentionKind::gqa) return out + gate + hidden * (num_heads * qk + num_kv_heads * (qk + v_head_dim));
  const int64_t q = q_lora_rank ? q_lora_rank * (hidden + num_heads * qk) : hidden * num_heads * qk;
  const int64_t kv =
      hidden * (kv_lora_rank + qk_rope_head_dim) + kv_lora_rank * num_heads * (qk_nope_head_dim + v_head_dim);
  return out + gate + q + kv;
}

int64_t ModelConfig::num_parameters() const { return count_parameters(*this, num_experts); }
int64_t ModelConfig::num_active_parameters() const { return count_parameters(*this, top_k); }

ModelConfig parse_model_config(const nlohmann::json& config, const std::string& source) {
  const JsonReader whole(config, source);
  ModelConfig model;
  model.raw = config;
  model.architecture = without(own_architecture_prefix, read_architecture(whole, config));
  model.model_type = without(own_model_type_prefix, whole.text("model_type", ""));
  const Family& family = find_family(whole, model.architecture, model.model_type);
  model.architecture = family.architecture;
  if (model.model_type.empty()) model.model_type = family.model_type;
  model.weight_block = read_weight_block(whole);
  const JsonReader reader = family.text_config ? whole.object(family.text_config) : whole;
  if (family.text_config) refuse_nested_connectivity(reader);

  model.vocab_size = reader.integer("vocab_size");
  model.hidden_size = reader.integer("hidden_size");
  model.layers.resize(reader.integer("num_hidden_layers"));
  model.top_k = reader.integer("num_experts_per_tok");
  model.max_position_embeddings = reader.integer("max_position_embeddings", 1, family.max_position_embeddings);
  model.rms_norm_eps = reader.positive("rms_norm_eps", family.rms_norm_eps);
  model.initializer_range = reader.positive("initializer_range", model.initializer_range);
  model.tie_word_embeddings = reader.flag("tie_word_embeddings", false);
  reader.require("hidden_act", "silu", "feed-forwards are SwiGLU");
  family.read(reader, family, model);

  if (model.attention.qk_rope_head_dim % 2 != 0) {
    const bool mla = model.attention.kind == AttentionKind::mla;
    reader.refuse(mla ? "qk_rope_head_dim" : "head_dim",
                  fmt::format("rotary embedding turns pairs; {} is odd", model.attention.qk_rope_head_dim));
  }
  check_router(reader, model);
  return model;
}

}  // namespace farskip
