#include "model/parameters.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "model/tensor_names.h"

namespace farskip {
namespace {

using nn::Param;
using Attention = nn::AttentionWeights;
using Shape = std::vector<int64_t>;
using Slot = std::function<Param&(nn::ModelWeights&)>;

/// Declares the parameters of a model in order. D hidden size, H heads, KV key/value heads, F feed-forward width,
/// E experts, V vocabulary.
class Builder {
 public:
  Builder(const ModelConfig& config, std::vector<ParameterInfo>& parameters, std::vector<BufferInfo>& buffers)
      : config_(config),
        names_(tensor_names(config)),
        D_(config.hidden_size),
        parameters_(parameters),
        buffers_(buffers) {}

  void model() {
    add(names_.prefix + "model.embed_tokens.weight", Stage::embed, Role::weight, {config_.vocab_size, D_},
        [](nn::ModelWeights& w) -> Param& { return w.embed_tokens; });
    for (layer_ = 0; layer_ < config_.num_layers(); ++layer_) layer();
    add(names_.prefix + "model.norm.weight", Stage::head, Role::norm, {D_},
        [](nn::ModelWeights& w) -> Param& { return w.norm; });
    if (!config_.tie_word_embeddings) {
      add(names_.prefix + "lm_head.weight", Stage::head, Role::weight, {config_.vocab_size, D_},
          [](nn::ModelWeights& w) -> Param& { return w.lm_head; });
    }
  }

 private:
  static constexpr Division rows = Division::rows;

  void layer() {
    const int64_t k = layer_;
    add(local("input_layernorm.weight"), Stage::qkv, Role::norm, {D_},
        [k](nn::ModelWeights& w) -> Param& { return w.layers[k].input_layernorm; });
    config_.attention.kind == AttentionKind::mla ? latent_attention() : grouped_attention();
    add(local("post_attention_layernorm.weight"), Stage::view_ff, Role::norm, {D_},
        [k](nn::ModelWeights& w) -> Param& { return w.layers[k].post_attention_layernorm; });
    if (config_.is_moe(k)) {
      moe();
    } else {
      feed_forward(local(names_.dense), Stage::dense, config_.intermediate_size,
                   [k](nn::ModelWeights& w) -> nn::FeedForwardWeights& { return w.layers[k].dense; });
    }
  }

  void latent_attention() {
    const AttentionConfig& a = config_.attention;
    const int64_t H = a.num_heads, q_out = H * a.qk_head_dim(), kv_out = a.kv_lora_rank + a.qk_rope_head_dim;
    if (a.q_lora_rank > 0) {
      attention("q_a_proj.weight", Stage::qkv, Role::weight, {a.q_lora_rank, D_}, &Attention::q_a_proj);
      if (a.bias) attention("q_a_proj.bias", Stage::qkv, Role::bias, {a.q_lora_rank}, &Attention::q_a_bias);
      attention("q_a_layernorm.weight", Stage::qkv, Role::norm, {a.q_lora_rank}, &Attention::q_a_layernorm);
      attention("q_b_proj.weight", Stage::qkv, Role::weight, {q_out, a.q_lora_rank}, &Attention::q_b_proj, rows);
    } else {
      attention("q_proj.weight", Stage::qkv, Role::weight, {q_out, D_}, &Attention::q_proj, rows);
    }
    attention("kv_a_proj_with_mqa.weight", Stage::qkv, Role::weight, {kv_out, D_}, &Attention::kv_a_proj_with_mqa);
    if (a.bias) attention("kv_a_proj_with_mqa.bias", Stage::qkv, Role::bias, {kv_out}, &Attention::kv_a_bias);
    attention("kv_a_layernorm.weight", Stage::qkv, Role::norm, {a.kv_lora_rank}, &Attention::kv_a_layernorm);
    attention("kv_b_proj.weight", Stage::qkv, Role::weight, {H * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank},
              &Attention::kv_b_proj, rows);
    attention_output();
  }

  void grouped_attention() {
    const AttentionConfig& a = config_.attention;
    const int64_t q = a.num_heads * a.qk_head_dim(), k = a.num_kv_heads * a.qk_head_dim();
    const int64_t v = a.num_kv_heads * a.v_head_dim;
    // A norm over all heads needs them all: each rank then computes them and keeps its own.
    const Division normed = a.qk_norm_all_heads ? Division::none : rows;
    attention("q_proj.weight", Stage::qkv, Role::weight, {q, D_}, &Attention::q_proj, normed);
    if (a.bias) attention("q_proj.bias", Stage::qkv, Role::bias, {q}, &Attention::q_bias, normed);
    attention("k_proj.weight", Stage::qkv, Role::weight, {k, D_}, &Attention::k_proj, normed);
    if (a.bias) attention("k_proj.bias", Stage::qkv, Role::bias, {k}, &Attention::k_bias, normed);
    attention("v_proj.weight", Stage::qkv, Role::weight, {v, D_}, &Attention::v_proj, rows);
    if (a.bias) attention("v_proj.bias", Stage::qkv, Role::bias, {v}, &Attention::v_bias, rows);
    if (a.qk_norm || a.qk_norm_all_heads) {
      attention("q_norm.weight", Stage::qkv, Role::norm, {a.qk_norm ? a.qk_head_dim() : q}, &Attention::q_norm);
      attention("k_norm.weight", Stage::qkv, Role::norm, {a.qk_norm ? a.qk_head_dim() : k}, &Attention::k_norm);
    }
    attention_output();
  }

  void attention_output() {
    const AttentionConfig& a = config_.attention;
    const int64_t width = a.num_heads * a.v_head_dim;
    if (a.gated) attention("gate_proj.weight", Stage::qkv, Role::weight, {width, D_}, &Attention::gate_proj, rows);
    attention("o_proj.weight", Stage::attn_out, Role::output_weight, {D_, width}, &Attention::o_proj,
              Division::columns);
    if (a.bias) attention("o_proj.bias", Stage::attn_out, Role::bias, {D_}, &Attention::o_bias, Division::first_rank);
  }

  void moe() {
    const int64_t k = layer_, E = config_.num_experts, F = config_.moe_intermediate_size;
    add(local(names_.router), Stage::route, Role::weight, {E, D_}, [k](nn::ModelWeights& w) -> Param& {
      return w.layers[k].moe.router;
    }).fp32 = true;
    if (config_.router.correction_bias) buffers_.push_back({local(names_.correction_bias), {E}, k});
    if (config_.has_shared()) {
      feed_forward(local(names_.shared), Stage::shared, config_.shared_intermediate_size,
                   [k](nn::ModelWeights& w) -> nn::FeedForwardWeights& { return w.layers[k].moe.shared; });
    }
    std::vector<TensorPiece> gate_up, down;
    for (int64_t e = 0; e < E; ++e) {
      const auto name = [&](const std::string& matrix) {
        return fmt::format("{}.{}.{}.weight", local(names_.experts), e, matrix);
      };
      if (names_.stacked_experts) {
        gate_up.push_back({name("gate_up_proj"), {2 * F, D_}, e, 0});
      } else {
        gate_up.push_back({name(names_.expert_gate), {F, D_}, e, 0});
        gate_up.push_back({name(names_.expert_up), {F, D_}, e, F});
      }
      down.push_back({name(names_.expert_down), {D_, F}, e, 0});
    }
    add_experts("gate_up", Role::weight, {E, 2 * F, D_}, std::move(gate_up),
                [k](nn::ModelWeights& w) -> Param& { return w.layers[k].moe.gate_up; });
    add_experts("down", Role::output_weight, {E, D_, F}, std::move(down),
                [k](nn::ModelWeights& w) -> Param& { return w.layers[k].moe.down; });
  }

  void add_experts(const std::string& name, Role role, Shape shape, std::vector<TensorPiece> pieces, Slot slot) {
    const std::string full = local(names_.experts) + "." + name;
    ParameterInfo& info = add_fused(full, Stage::experts, role, std::move(shape), std::move(pieces), std::move(slot));
    info.expert = true;
    info.division = role == Role::output_weight ? Division::columns : Division::gate_and_up;
    if (names_.stacked_experts) info.stack = full + "_proj";
  }

  void feed_forward(const std::string& prefix, Stage stage, int64_t F,
                    std::function<nn::FeedForwardWeights&(nn::ModelWeights&)> weights) {
    add_fused(prefix + ".gate_up", stage, Role::weight, {2 * F, D_},
              {{prefix + ".gate_proj.weight", {F, D_}, -1, 0}, {prefix + ".up_proj.weight", {F, D_}, -1, F}},
              [weights](nn::ModelWeights& w) -> Param& { return weights(w).gate_up; })
        .division = Division::gate_and_up;
    add(prefix + ".down_proj.weight", stage, Role::output_weight, {D_, F}, [weights](nn::ModelWeights& w) -> Param& {
      return weights(w).down;
    }).division = Division::columns;
  }

  void attention(const char* name, Stage stage, Role role, Shape shape, Param Attention::*member,
                 Division division = Division::none) {
    add(local("self_attn.") + name, stage, role, std::move(shape), [k = layer_, member](nn::ModelWeights& w) -> Param& {
      return w.layers[k].attention.*member;
    }).division = division;
  }

  ParameterInfo& add(const std::string& name, Stage stage, Role role, Shape shape, Slot slot) {
    return add_fused(name, stage, role, shape, {{name, shape}}, std::move(slot));
  }

  ParameterInfo& add_fused(std::string name, Stage stage, Role role, Shape shape, std::vector<TensorPiece> pieces,
                           Slot slot) {
    ParameterInfo info;
    info.id = static_cast<int>(parameters_.size());
    info.name = std::move(name);
    info.shape = std::move(shape);
    info.layer = layer_;
    info.stage = stage;
    info.role = role;
    info.pieces = std::move(pieces);
    info.slot = std::move(slot);
    return parameters_.emplace_back(std::move(info));
  }

  std::string local(const std::string& name) const {
    return fmt::format("{}model.layers.{}.{}", names_.prefix, layer_, name);
  }

  const ModelConfig& config_;
  const TensorNames names_;
  const int64_t D_;
  int64_t layer_ = -1;
  std::vector<ParameterInfo>& parameters_;
  std::vector<BufferInfo>& buffers_;
};

}  // namespace

at::Tensor TensorPiece::of(const at::Tensor& parameter, int64_t first_expert) const {
  const at::Tensor matrix = expert < 0 ? parameter : parameter.select(0, expert - first_expert);
  return matrix.narrow(0, row, shape[0]);
}

int64_t ParameterInfo::numel() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::vector<std::pair<std::string, std::vector<int64_t>>> ParameterInfo::tensors() const {
  if (!stack.empty()) return {{stack, {shape[0], shape[2], shape[1]}}};
  std::vector<std::pair<std::string, std::vector<int64_t>>> result;
  for (const auto& piece : pieces) result.emplace_back(piece.name, piece.shape);
  return result;
}

std::vector<std::pair<std::string, at::Tensor>> ParameterInfo::tensors_of(const at::Tensor& whole) const {
  if (!stack.empty()) return {{stack, whole.transpose(1, 2)}};
  std::vector<std::pair<std::string, at::Tensor>> result;
  for (const auto& piece : pieces) result.emplace_back(piece.name, piece.of(whole));
  return result;
}

ParameterTable::ParameterTable(const ModelConfig& config)
    : num_layers_(config.num_layers()),
      num_experts_(config.num_experts),
      tied_(config.tie_word_embeddings),
      prefix_(tensor_names(config).prefix),
      weight_block_(config.weight_block) {
  Builder(config, parameters_, buffers_).model();
}

bool ParameterTable::carries(const std::string& tensor) const {
  if (tensor.rfind(prefix_, 0) != 0) return true;
  constexpr std::string_view layers = "model.layers.";
  if (tensor.compare(prefix_.size(), layers.size(), layers) != 0) return false;
  int64_t layer = -1;
  const char* digits = tensor.data() + prefix_.size() + layers.size();
  std::from_chars(digits, tensor.data() + tensor.size(), layer);
  return layer >= num_layers_;
}

std::vector<int> ParameterTable::of_stage(int64_t layer, Stage stage) const {
  std::vector<int> ids;
  for (const auto& info : parameters_) {
    const bool tied_head = tied_ && stage == Stage::head && info.stage == Stage::embed;
    if ((info.layer == layer && info.stage == stage) || tied_head) ids.push_back(info.id);
  }
  return ids;
}

int64_t ParameterTable::num_parameters() const {
  int64_t count = 0;
  for (const auto& info : parameters_) count += info.numel();
  return count;
}

}  // namespace farskip
