#include <ATen/core/grad_mode.h>

#include <exception>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "layer/export_config.h"
#include "model/checkpoint.h"
#include "model/folder_replacement.h"
#include "model/safetensors_writer.h"

namespace farskip {
namespace {

/// What rank 0 writes, in this order. Buffers come first: they are fp32, and larger dtypes must.
std::vector<TensorSpec> all_specs(const ParameterTable& table, at::ScalarType dtype) {
  std::vector<TensorSpec> specs;
  for (const auto& buffer : table.buffers()) specs.push_back({buffer.name, at::kFloat, buffer.shape});
  for (const auto& info : table.parameters()) {
    for (const auto& piece : info.pieces) specs.push_back({piece.name, dtype, piece.shape});
  }
  return specs;
}

/// Rank 0's side. An error does not stop the walk over the parameters, in which all ranks take part, but is kept for
/// its end.
class Writing {
 public:
  Writing(const std::string& folder, const std::vector<TensorSpec>& specs, const SaveOptions& options) {
    attempt([&] {
      folder_.emplace(folder);
      tensors_.emplace(folder_->temporary(), specs, options.max_shard_bytes);
    });
  }

  void write(const std::string& name, const at::Tensor& tensor) {
    attempt([&] { tensors_->write(name, tensor); });
  }

  void finish(const nlohmann::json& config, const SaveOptions& options) {
    attempt([&] {
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

  std::optional<Writing> writing;
  if (parameters.options().expert_rank == 0) writing.emplace(folder, all_specs(table, options.dtype), options);
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
        writing->write(piece.name, piece.of(block, owner * parameters.num_local_experts()));
      }
    }
  }
  if (writing) writing->finish(config, options);
}

}  // namespace farskip
