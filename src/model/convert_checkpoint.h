#pragma once
// A checkpoint in another dtype, in files of another size, or under another connectivity.

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "layer/connectivity.h"

namespace farskip {

struct ConvertOptions {
  std::optional<at::ScalarType> dtype;       ///< of the weights; absent: each as it is
  std::optional<std::string> connectivity;   ///< a spelling; absent: the one it has
  uint64_t max_shard_bytes = 5'000'000'000;  ///< a larger tensor has a file of its own
  /// What is written instead of the tensor of a name, rounded to its type; undefined: nothing.
  std::function<at::Tensor(const std::string& name)> changed = {};
  /// Called after each tensor with bytes read so far and in all.
  std::function<void(uint64_t done, uint64_t total)> on_progress;
};

struct ConvertReport {
  Connectivity from, to;
  int64_t num_tensors = 0;
  uint64_t bytes_read = 0, bytes_written = 0;  ///< of tensors
  std::vector<std::string> copied;             ///< files beside the weights: tokenizer, generation settings
  std::vector<std::string> left_out;           ///< files that belong to the old form of the weights
};

/// Throws Error where `out` exists, as convert_checkpoint() does: for those who have work to do before.
void check_not_there(const std::string& out);

/// Writes the folder `out` from the folder `in` (a Hugging Face folder, or a run's checkpoints, of which the newest is
/// taken), with export_config's names. Memory is bounded by the largest tensor, in both dtypes; `out` is written aside
/// and renamed when complete. Tensors that the model does not use (layers for multi-token prediction) come along;
/// router biases and frequencies keep their dtype, and 8-bit weights with block scales become bf16 (or `dtype`). Throws
/// Error where `out` exists, where the tensors do not fit config.json, for other 8-bit weights, and where the disk is
/// too small.
ConvertReport convert_checkpoint(const std::string& in, const std::string& out, const ConvertOptions& options);

}  // namespace farskip
