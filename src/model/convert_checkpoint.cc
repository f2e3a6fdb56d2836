#include "model/convert_checkpoint.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "config/checkpoint_folder.h"
#include "layer/export_config.h"
#include "model/block_scales.h"
#include "model/checkpoint.h"
#include "model/folder_replacement.h"
#include "model/safetensors_writer.h"

namespace farskip {

namespace fs = std::filesystem;

namespace {

/// Not weights in the sense of --dtype: other programs expect them in fp32.
bool keeps_dtype(const std::string& name) {
  return name.ends_with("e_score_correction_bias") || name.ends_with("rotary_emb.inv_freq");
}

at::ScalarType target_dtype(const TensorSpec& spec, const ConvertOptions& options) {
  const bool weight = c10::isFloatingType(spec.dtype) && !keeps_dtype(spec.name);
  const bool scaled = spec.dtype == at::kFloat8_e4m3fn;
  return weight ? options.dtype.value_or(scaled ? at::kBFloat16 : spec.dtype) : spec.dtype;
}

/// What is written, in this order: larger dtypes first, as the format has it.
std::vector<TensorSpec> target_specs(const SafetensorsReader& reader, const ModelConfig& model,
                                     const ConvertOptions& options) {
  std::vector<TensorSpec> specs;
  for (const auto& name : reader.names()) {
    if (is_block_scale(reader, name)) continue;
    TensorSpec spec = reader.spec(name);
    if (c10::isFloatingType(spec.dtype) && c10::elementSize(spec.dtype) == 1) {
      const std::string problem = is_block_scaled(reader, name) ? scale_problem(reader, name, model.weight_block)
                                                                : "convert the checkpoint to BF16 first";
      if (!problem.empty()) {
        fail("{}: tensor {} is {}: {}", reader.source(), name, safetensors_dtype(spec.dtype), problem);
      }
    }
    spec.dtype = target_dtype(spec, options);
    specs.push_back(std::move(spec));
  }
  std::stable_sort(specs.begin(), specs.end(), [](const TensorSpec& a, const TensorSpec& b) {
    return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
  });
  return specs;
}

/// Files that speak of the weights in their old form, or hold them in another one.
bool belongs_to_weights(const std::string& name) {
  static const std::set<std::string> names = {"config.json", training_state_name, modeling_file_name};
  static const std::set<std::string> extensions = {".safetensors", ".bin",  ".pt", ".pth",
                                                   ".gguf",        ".onnx", ".h5", ".msgpack"};
  return names.count(name) || extensions.count(fs::path(name).extension()) || name.ends_with(".index.json");
}

void copy_others(const std::string& in, const std::string& out, ConvertReport& report) {
  for (const auto& entry : fs::directory_iterator(in)) {
    const std::string name = entry.path().filename();
    const bool copy = entry.is_regular_file() && !name.starts_with(".") && !belongs_to_weights(name);
    if (copy) fs::copy_file(entry.path(), fs::path(out) / name);
    (copy ? report.copied : report.left_out).push_back(name);
  }
  std::sort(report.copied.begin(), report.copied.end());
  std::sort(report.left_out.begin(), report.left_out.end());
}

void check_room(const std::string& out, uint64_t needed) {
  const int64_t free = free_bytes(out);
  if (free >= 0 && static_cast<uint64_t>(free) < needed) {
    fail("{}: {} of tensors are to be written, but only {} are free there; choose another disk or a smaller --dtype",
         out, format_bytes(static_cast<int64_t>(needed)), format_bytes(free));
  }
}

}  // namespace

void check_not_there(const std::string& out) {
  if (fs::exists(out)) fail("{}: exists already; choose another name, or remove it first", out);
}

ConvertReport convert_checkpoint(const std::string& in, const std::string& out, const ConvertOptions& options) {
  const at::NoGradGuard no_grad;
  check_not_there(out);
  const std::string folder = resolve_model_folder(in);
  const ModelConfig model = load_model_config(folder);
  ConvertReport report;
  report.from = report.to = Connectivity::from_config(model.raw, model.num_layers());
  if (options.connectivity) report.to = Connectivity::parse(*options.connectivity, model.num_layers());
  nlohmann::json config = export_config(model, report.to);
  if (options.dtype) note_dtype(config, *options.dtype);

  const SafetensorsReader reader(folder);
  const TensorCheck check = check_tensors(reader, ParameterTable(model));
  const auto specs = target_specs(reader, model, options);
  if (!check.ok()) fail("{}: does not fit the model of its config.json:{}", reader.source(), check.to_string());
  for (const auto& spec : specs) report.bytes_written += spec.num_bytes();

  FolderReplacement replacement(out);
  check_room(replacement.temporary(), report.bytes_written);
  ShardedWriter writer(replacement.temporary(), specs, options.max_shard_bytes);
  for (const auto& spec : specs) {
    const at::Tensor changed = options.changed ? options.changed(spec.name) : at::Tensor();
    writer.write(spec.name, changed.defined() ? changed : read_weight(reader, spec.name, model.weight_block));
    reader.release(spec.name);
    report.bytes_read += reader.spec(spec.name).num_bytes();
    if (is_block_scaled(reader, spec.name)) report.bytes_read += reader.spec(scale_name(spec.name)).num_bytes();
    ++report.num_tensors;
    if (options.on_progress) options.on_progress(report.bytes_read, reader.bytes_in_all());
  }
  writer.commit();
  write_file(replacement.temporary() + "/config.json", config.dump(2) + "\n");
  if (needs_modeling_file(config)) {
    write_file(replacement.temporary() + "/" + modeling_file_name, modeling_source());
  }
  copy_others(folder, replacement.temporary(), report);
  replacement.commit();
  return report;
}

}  // namespace farskip
