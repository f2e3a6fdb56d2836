#pragma once
// Checkpoints as Hugging Face folders: config.json and model.safetensors, or its shards with an index.

#include <ATen/core/Tensor.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/parameter_set.h"
#include "model/safetensors.h"

namespace farskip {

/// The tensors of a folder against those of a model.
struct TensorCheck {
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
  std::vector<std::string> wrong;    ///< of wrong shape or dtype: names, each with what it is and should be
  std::vector<std::string> ignored;  ///< that the model has no use for, see load_checkpoint

  bool ok() const { return missing.empty() && unexpected.empty() && wrong.empty(); }
  /// Counts and the first names of what is not ok, a line for each kind, each behind "\n".
  std::string to_string() const;
};

/// Compares names, shapes and dtypes, and a head that is tied with the embedding: nothing else is read. Throws Error
/// where these differ.
TensorCheck check_tensors(const SafetensorsReader& reader, const ParameterTable& table);

struct LoadReport {
  int64_t num_tensors = 0;           ///< that this rank read
  std::vector<std::string> ignored;  ///< tensors of the folder that the model has no use for, see load_checkpoint
  int64_t num_rounded = 0;           ///< pieces of frozen parameters whose values are finer there than here
  uint64_t bytes_read = 0;           ///< of tensors, by this rank
  uint64_t bytes_in_folder = 0;      ///< of all its tensors
  double seconds = 0;

  /// A sentence about `ignored`; empty where it is.
  std::string unused() const;
};

/// Reads the parameters and buffers this rank holds from a folder (or a single .safetensors file) and updates the
/// values. Each rank reads only its own experts, and holds no more of the files than one tensor at a time. Throws
/// Error, with counts and the first names, for tensors that are missing, that the model does not have, or whose shape
/// or dtype is wrong; nothing has been changed then.
///
/// 8-bit weights with block scales (see model/block_scales.h) are read as bf16. Of experts stacked in one tensor a rank
/// reads its own slices; a folder may also hold them one by one, under the names of the table's pieces.
///
/// Ignored, but reported: carried_tensors(), rotary_emb.inv_freq (computed, not learned), and lm_head.weight where
/// embeddings are tied, provided that it equals the embedding.
LoadReport load_checkpoint(const std::string& folder, ParameterSet& parameters);

/// Reads parameters piece by piece. REQUIRES: check_tensors() found nothing.
class PieceReader {
 public:
  PieceReader(const SafetensorsReader& reader, const ParameterTable& table) : reader_(reader), table_(table) {}
  ~PieceReader() { release(); }
  PieceReader(const PieceReader&) = delete;
  PieceReader& operator=(const PieceReader&) = delete;

  /// The piece, of the file's own type (of block-scaled weights bf16), valid until the next is read: memory holds one.
  at::Tensor read(const ParameterInfo& info, const TensorPiece& piece);
  int64_t num_tensors() const { return num_tensors_; }  ///< read so far; of stacked experts the stack, once each run

 private:
  void release();

  const SafetensorsReader& reader_;
  const ParameterTable& table_;
  std::string held_;
  std::string counted_;
  int64_t num_tensors_ = 0;
};

/// What a checkpoint holds beside the model: layers past its last (multi-token prediction), and the tensors of other
/// models (images). SaveOptions::carry_from copies them untouched. Sorted.
std::vector<std::string> carried_tensors(const SafetensorsReader& reader, const ParameterTable& table);

struct SaveOptions {
  at::ScalarType dtype = at::kFloat;         ///< of the parameters; buffers stay fp32
  uint64_t max_shard_bytes = 5'000'000'000;  ///< transformers' default
  /// With several expert ranks: brings a block of another rank to rank 0. Called by all ranks in the same order, each
  /// with its own block, all of one shape; returns, on rank 0, that of rank `owner`. What it returns elsewhere is not
  /// looked at.
  std::function<at::Tensor(const at::Tensor& block, int64_t owner)> gather;
  /// A folder (or file) whose carried_tensors() are written beside the model's, byte for byte; empty: none.
  std::string carry_from;
  /// Called on rank 0 with the unfinished folder, to add files of one's own (tokenizer, optimizer state).
  std::function<void(const std::string& folder)> extra;
};

/// Notes the dtype of the weights in a config.json. Throws Error for one in which no checkpoint is saved.
void note_dtype(nlohmann::json& config, at::ScalarType dtype);

/// Writes a folder that transformers and load_checkpoint can read. `config` is its config.json (see
/// export_config; a modelling file that it names is written, too); the dtype is noted in it. Called by every expert
/// rank (of one data-parallel replica); rank 0 writes, never holding more than one parameter of one rank. The folder is
/// written aside (FOLDER.tmp) and renamed when complete, so that under the name there is always the old folder or the
/// new one. Throws Error, leaving the old folder as it was, where the system cannot write (a full disk), and where the
/// old folder holds files that the new one would not replace: rank 0 only, after all ranks have finished.
void save_checkpoint(const std::string& folder, nlohmann::json config, const ParameterSet& parameters,
                     const SaveOptions& options = {});

}  // namespace farskip
