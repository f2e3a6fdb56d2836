#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <exception>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "config/checkpoint_folder.h"
#include "layer/export_config.h"
#include "model/checkpoint.h"
#include "model/folder_replacement.h"
#include "model/safetensors_writer.h"

namespace farskip {
namespace {

/// The tensors of another folder that are copied, larger dtypes first. `wide`: those whose elements are larger than
/// parameters', the others otherwise.
class Carried {
 public:
  Carried(const std::string& folder, const ParameterTable& table, at::ScalarType dtype) {
    if (folder.empty()) return;
    reader_.emplace(resolve_model_folder(folder));
    for (const auto& name : carried_tensors(*reader_, table)) {
      const TensorSpec& spec = reader_->spec(name);
      (c10::elementSize(spec.dtype) > c10::elementSize(dtype) ? wide : narrow).push_back(spec);
    }
    for (auto* specs : {&wide, &narrow}) {
      std::stable_sort(specs->begin(), specs->end(), [](const TensorSpec& a, const TensorSpec& b) {
        return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
      });
    }
  }

  void copy(const std::vector<TensorSpec>& specs, ShardedWriter& to) const {
    for (const auto& spec : specs) {
      to.write(spec.name, reader_->tensor(spec.name));
      reader_->release(spec.name);
    }
  }

  std::vector<TensorSpec> wide, narrow;

 private:
  std::optional<SafetensorsReader> reader_;
};

/// What rank 0 writes, in this order: larger dtypes must come first, and buffers are fp32.
std::vector<TensorSpec> all_specs(const ParameterTable& table, at::ScalarType dtype, const Carried& carried) {
  std::vector<TensorSpec> specs = carried.wide;
  for (const auto& buffer : table.buffers()) specs.push_back({buffer.name, at::kFloat, buffer.shape});
  for (const auto& info : table.parameters()) {
    for (const auto& [name, shape] : info.tensors()) specs.push_back({name, dtype, shape});
  }
  specs.insert(specs.end(), carried.narrow.begin(), carried.narrow.end());
  return specs;
}

/// Rank 0's side. An error does not stop the walk over the parameters, in which all ranks take part, but is kept for
/// its end.
class Writing {
 public:
  Writing(const std::string& folder, const ParameterTable& table, const SaveOptions& options) {
    attempt([&] {
      carried_.emplace(options.carry_from, table, options.dtype);
      folder_.emplace(folder);
      tensors_.emplace(folder_->temporary(), all_specs(table, options.dtype, *carried_), options.max_shard_bytes);
      carried_->copy(carried_->wide, *tensors_);
    });
  }

  void write(const std::string& name, const at::Tensor& tensor) {
    attempt([&] { tensors_->write(name, tensor); });
  }

  void finish(const nlohmann::json& config, const SaveOptions& options) {
    attempt([&] {
      carried_->copy(carried_->narrow, *tensors_);
      tensors_->commit();
      write_file(folder_->temporary() + "/config.json", config.dump(2) + "\n");
      if (needs_modeling_file(config)) write_file(folder_->temporary() + "/" + modeling_file_name, modeling_source());
      if (options.extra) options.extra(folder_->temporary());
      folder_->commit();
    });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  template <typename Action>
  void attempt(Action&& action) {
    if (error_) return;
    try {
      action();
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  std::exception_ptr error_;
  std::optional<Carried> carried_;
  std::optional<FolderReplacement> folder_;
  std::optional<ShardedWriter> tensors_;
};

}  // namespace

void note_dtype(nlohmann::json& config, at::ScalarType dtype) {
  const char* name = dtype == at::kFloat ? "float32" : dtype == at::kBFloat16 ? "bfloat16" : "float16";
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
    fail("checkpoints are saved in float32, bfloat16 or float16, not in {}", c10::toString(dtype));
  }
  // transformers renamed the key; both are understood everywhere, but they must not disagree.
  if (config.contains("dtype")) config["dtype"] = name;
  if (!config.contains("dtype") || config.contains("torch_dtype")) config["torch_dtype"] = name;
}

void save_checkpoint(const std::string& folder, nlohmann::json config, const ParameterSet& parameters,
                     const SaveOptions& options) {
  const at::NoGradGuard no_grad;
  const ParameterTable& table = parameters.table();
  const int64_t num_ranks = parameters.options().expert_ranks;
  FARSKIP_CHECK(num_ranks == 1 || options.gather, "several expert ranks, but no way to gather their experts");
  note_dtype(config, options.dtype);

  config.erase("quantization_config");  // of what was read

  std::optional<Writing> writing;
  if (parameters.options().expert_rank == 0) writing.emplace(folder, table, options);
  for (size_t i = 0; writing && i < table.buffers().size(); ++i) {
    writing->write(table.buffers()[i].name, parameters.buffer(static_cast<int>(i)));
  }
  for (const auto& info : table.parameters()) {
    for (int64_t owner = 0; owner < (info.expert ? num_ranks : 1); ++owner) {
      const at::Tensor& mine = parameters.stored(info.id);
      const at::Tensor block = owner == 0 ? mine : options.gather(mine, owner);
      if (!writing) continue;
      for (const auto& piece : info.pieces) {
        if (info.expert && parameters.owner(piece.expert) != owner) continue;
        const at::Tensor tensor = piece.of(block, owner * parameters.num_local_experts());
        if (info.stack.empty()) {
          writing->write(piece.name, tensor);
        } else {
          writing->write(info.stack, tensor.t().unsqueeze(0));
        }
      }
    }
  }
  if (writing) writing->finish(config, options);
}

}  // namespace farskip
