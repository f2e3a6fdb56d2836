#pragma once
// What a model is, apart from its weights and its connectivity: shapes and options, read from a Hugging Face
// config.json. The fields are those of the layer as we compute it; every family's spelling is mapped onto them in one
// place (config/families.cc), so that nothing above ever asks for a model's name.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace farskip {

/// YaRN context extension (arXiv 2309.00071), as DeepSeek's checkpoints spell it.
struct Yarn {
  double factor = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 0.0;
  int64_t original_max_position_embeddings = 4096;

  /// 0.1 * scale * ln(factor) + 1, or 1 where factor <= 1.
  static double attention_factor(double factor, double scale);
};

/// Llama 3's context extension: pairs that turn less than low_freq_factor times in the original context are slowed by
/// `factor`, those that turn more than high_freq_factor times are kept, a ramp lies between.
struct Llama3Scaling {
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 8192;
};

/// Queries of layers without rotation are multiplied by 1 + scale * ln(1 + floor((position + 1) / floor)), so that
/// attention stays sharp in long sequences (arXiv 2501.19399; Llama-4).
struct QueryTemperature {
  double floor = 8192;
  double scale = 0.1;
};

struct RotaryConfig {
  double theta = 10000.0;
  bool interleaved = false;  ///< pairs are (0,1), (2,3), ... instead of (0, d/2), (1, d/2+1), ...
  std::optional<Yarn> yarn = {};
  std::optional<Llama3Scaling> llama3 = {};
  std::optional<QueryTemperature> temperature = {};
};

/// What differs between the attentions of one model.
struct LayerAttention {
  bool rotary = true;  ///< q and k are rotated
  int64_t chunk = 0;   ///< a position sees those of its own run of `chunk` positions alone; 0: all before it
};

enum class AttentionKind { mla, gqa };

/// Multi-head latent attention (DeepSeek) or grouped-query attention.
struct AttentionConfig {
  AttentionKind kind = AttentionKind::gqa;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;      ///< gqa; equals num_heads for mla
  int64_t first_head = 0;        ///< of a tensor-parallel rank's share of the heads
  int64_t q_lora_rank = 0;       ///< mla; 0: queries are projected directly
  int64_t kv_lora_rank = 0;      ///< mla
  int64_t qk_nope_head_dim = 0;  ///< mla; 0 for gqa
  int64_t qk_rope_head_dim = 0;  ///< mla; head_dim for gqa
  int64_t v_head_dim = 0;
  double latent_norm_eps = 1e-6;   ///< of q_a_layernorm and kv_a_layernorm: 1e-6 whatever rms_norm_eps says
  bool gated = false;              ///< o_proj(core * sigmoid(gate_proj(normed input)))
  bool qk_norm = false;            ///< RMSNorm on each head of q and k (Qwen3)
  bool qk_norm_all_heads = false;  ///< RMSNorm over all heads of q and k together (OLMoE)
  bool qk_l2_norm = false;         ///< each rotated head of q and k is divided by its root mean square (Llama-4)
  bool bias = false;               ///< q/k/v (or the latent down-projections) and o_proj carry a bias
  RotaryConfig rotary;
  std::vector<LayerAttention> layers;  ///< one entry per layer; empty: all are alike

  LayerAttention of_layer(int64_t layer) const { return layers.empty() ? LayerAttention{} : layers.at(layer); }

  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  /// 1/sqrt(qk_head_dim), times the square of YaRN's mscale_all_dim factor.
  double softmax_scale() const;
  /// Elements of all projection matrices (gate included; norms and biases not) of a layer whose width is `hidden`.
  int64_t num_projection_weights(int64_t hidden) const;
};

enum class Scoring { softmax, sigmoid };
enum class GroupScore { none, max, top2_sum };

struct RouterConfig {
  Scoring scoring = Scoring::softmax;
  bool by_logits = false;        ///< logits are compared, which do not saturate as their sigmoids do (Llama-4)
  bool correction_bias = false;  ///< e_score_correction_bias takes part in the choice, never in the weight
  int64_t num_groups = 1;
  int64_t topk_groups = 1;
  GroupScore group_score = GroupScore::none;
  bool normalize = false;      ///< chosen weights are divided by their sum (+1e-20)
  double scaling = 1.0;        ///< weights are multiplied by this at the end
  bool force_balance = false;  ///< a run's benchmark setting, never a model's: even loads whatever the scores are
  bool weigh_input = false;    ///< the weight multiplies the expert's input instead of its output (Llama-4)
};

enum class LayerKind { dense, moe };

struct ModelConfig {
  std::string architecture;  ///< architectures[0]
  std::string model_type;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;         ///< feed-forward width of a dense layer
  int64_t moe_intermediate_size = 0;     ///< width of one routed expert
  int64_t shared_intermediate_size = 0;  ///< width of all shared experts together; 0: the model has none
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t max_position_embeddings = 0;
  int64_t num_nextn_predict_layers = 0;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  double aux_loss_alpha = 0.0;  ///< of the sequence auxiliary loss
  bool tie_word_embeddings = false;
  AttentionConfig attention;
  RouterConfig router;
  std::vector<LayerKind> layers;      ///< one entry per layer
  std::vector<int64_t> weight_block;  ///< rows and columns that share a scale in 8-bit checkpoints; empty: none do
  nlohmann::json raw;                 ///< the whole config.json, for export and for the connectivity's keys

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
  bool has_shared() const { return shared_intermediate_size > 0; }
  bool is_moe(int64_t layer) const { return layers.at(layer) == LayerKind::moe; }

  /// Parameters of the whole model, without multi-token-prediction layers and the router's correction bias (a buffer);
  /// and those that one token uses (routed experts counted top_k times, embeddings and head in full).
  int64_t num_parameters() const;
  int64_t num_active_parameters() const;
};

/// Reads the text of a config.json. `source` names it in errors. Throws Error for an unknown family, a missing key, a
/// wrong type or an impossible shape, with the key, the value and what was expected.
ModelConfig parse_model_config(const nlohmann::json& config, const std::string& source);

/// `model`: a folder with a config.json, a config.json file, or the name of a preset (presets/NAME/config.json). Throws
/// Error where it is neither, and as parse_model_config.
ModelConfig load_model_config(const std::string& model);

/// Path of the preset folder `name`, and the names of all presets. Presets are looked for in $FARSKIP_PRESETS, beside
/// the program and in the source tree.
std::string preset_path(const std::string& name);
std::vector<std::string> preset_names();

}  // namespace farskip
