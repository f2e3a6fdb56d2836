#include "infer/inference_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "config/checkpoint_folder.h"
#include "model/checkpoint.h"
#include "model/initialize.h"
#include "model/parameters.h"

namespace farskip {
namespace {

at::ScalarType dtype_of(const ModelConfig& config, const InferenceModelOptions& options) {
  if (options.dtype) return *options.dtype;
  const auto& raw = config.raw;
  const std::string name = raw.value("dtype", raw.value("torch_dtype", std::string()));
  return name == "bfloat16" || !config.weight_block.empty() ? at::kBFloat16 : at::kFloat;
}

Connectivity connectivity_of(const ModelConfig& config, const InferenceModelOptions& options) {
  if (options.connectivity) return Connectivity::parse(*options.connectivity, config.num_layers());
  return Connectivity::from_config(config.raw, config.num_layers());
}

nn::Param prepared(const at::Tensor& value, nn::Quantization quantization, bool batch_invariant) {
  nn::Param param;
  param.prepared = std::make_shared<nn::PreparedWeight>(
      nn::PreparedWeight{nn::InferenceWeight(value, quantization), {.batch_invariant = batch_invariant}});
  return param;
}

int64_t num_bytes(const nn::Param& param) {
  return param.prepared ? param.prepared->weight.nbytes() : static_cast<int64_t>(param.value.nbytes());
}

}  // namespace

InferenceModel InferenceModel::with(const Connectivity& connectivity) const {
  InferenceModel result = *this;
  result.connectivity_ = connectivity;
  return result;
}

void InferenceModel::place(const ParameterInfo& info, const at::Tensor& value, const InferenceModelOptions& options) {
  nn::Param& slot = info.slot(weights_);
  const bool product = info.decays() && info.stage != Stage::embed;
  const auto quantization = info.fp32 ? nn::Quantization::none : options.quantization;
  slot = product ? prepared(value, quantization, options.batch_invariant) : nn::Param{value};
  slot.id = info.id;
  weight_bytes_ += num_bytes(slot);
  if (info.layer < 0 || info.layer >= config_.num_layers()) return;
  nn::AttentionWeights& attention = weights_.layers[info.layer].attention;
  if (&slot != &attention.kv_b_proj) return;
  // Both ways to compute with it have the same elements.
  const auto& a = local_config().attention;
  const at::Tensor heads =
      slot.prepared->weight.decoded().to(dtype_).view({a.num_heads, a.qk_nope_head_dim + a.v_head_dim, a.kv_lora_rank});
  const auto part = [&](const at::Tensor& x) {
    nn::Param param = prepared(x.contiguous(), nn::Quantization::none, options.batch_invariant);
    weight_bytes_ += num_bytes(param);
    return param;
  };
  attention.key_up = part(heads.narrow(1, 0, a.qk_nope_head_dim).transpose(1, 2));
  attention.value_up = part(heads.narrow(1, a.qk_nope_head_dim, a.v_head_dim));
}

void InferenceModel::fill(const ParameterTable& table, const InferenceModelOptions& options,
                          const std::function<at::Tensor(const ParameterInfo&, const TensorPiece&)>& read,
                          const std::function<void()>& on_parameter) {
  const at::NoGradGuard no_grad;
  weights_.layers.resize(table.num_layers());
  for (const auto& info : table.parameters()) {
    if (!share_.holds(info)) continue;
    const at::Tensor value = at::empty(share_.shape(info), info.fp32 ? at::kFloat : dtype_);
    share_.fill(info, value, [&](const TensorPiece& piece) { return read(info, piece); });
    place(info, value, options);
    on_parameter();
  }
  if (table.tied()) {
    weights_.lm_head = prepared(weights_.embed_tokens.value, nn::Quantization::none, options.batch_invariant);
    weight_bytes_ += num_bytes(weights_.lm_head);
  }
}

InferenceModel::InferenceModel(const std::string& folder, const InferenceModelOptions& options)
    : folder_(resolve_model_folder(folder)),
      config_(load_model_config(folder_)),
      connectivity_(connectivity_of(config_, options)),
      layout_(options.layout),
      rank_(options.rank),
      share_(config_, layout_, rank_),
      dtype_(dtype_of(config_, options)) {
  const ParameterTable table(config_);
  const SafetensorsReader reader(folder_);
  const TensorCheck check = check_tensors(reader, table);
  if (!check.ok()) fail("{}: does not fit the model of its config.json:{}", reader.source(), check.to_string());
  LoadReport report;
  report.ignored = check.ignored;
  unused_ = report.unused();
  PieceReader pieces(reader, table);
  const auto read = [&](const ParameterInfo& info, const TensorPiece& piece) { return pieces.read(info, piece); };
  fill(table, options, read, [&] {
    if (options.on_progress) options.on_progress(reader.bytes_read(), reader.bytes_in_all());
  });
  for (const auto& buffer : table.buffers()) {
    weights_.layers[buffer.layer].moe.correction_bias = reader.tensor(buffer.name).to(at::kFloat).clone();
  }
}

InferenceModel::InferenceModel(const ModelConfig& config, uint64_t seed, const InferenceModelOptions& options)
    : config_(config),
      connectivity_(connectivity_of(config_, options)),
      layout_(options.layout),
      rank_(options.rank),
      share_(config_, layout_, rank_),
      dtype_(dtype_of(config_, options)) {
  const ParameterTable table(config_);
  const InitOptions init{seed, config.initializer_range};
  const auto read = [&](const ParameterInfo& info, const TensorPiece& piece) {
    return initial_piece(info, piece, table.num_layers(), init);
  };
  fill(table, options, read, [] {});
  for (const auto& buffer : table.buffers())
    weights_.layers[buffer.layer].moe.correction_bias = at::zeros(buffer.shape, at::kFloat);
}

}  // namespace farskip
