#pragma once
// Training checkpoints: each rank copies its part and goes on training while a thread writes it. The format is that of
// config/checkpoint_folder.h: a Hugging Face folder with the weights, model-0000R-of-0000N.safetensors by the N ranks
// (in fp32; rounded where masters are shared out), and beside it optimizer-*.safetensors (train/optimizer_state.h).

#include <future>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "layer/layout.h"
#include "model/parameter_set.h"
#include "train/optimizer.h"
#include "transport/transport.h"

namespace farskip {

/// What a run needs to go on, besides tensors.
struct TrainingState {
  int64_t iteration = 0;  ///< steps done
  int64_t consumed_samples = 0;
  int64_t optimizer_steps = 0;  ///< of which applied an update
  int64_t seed = 0, seq_length = 0, global_batch_size = 0;
  std::string layout;    ///< it was saved under
  std::string schedule;  ///< text form, of that layout; empty: none was chosen yet
  nlohmann::json extra;  ///< state of what steers the run

  nlohmann::json to_json() const;
  /// Throws Error naming `source` and the key for anything missing.
  static TrainingState from_json(const nlohmann::json& json, const std::string& source);
};

/// A tensor by its parameter and its place among that parameter's pieces.
struct PieceId {
  int parameter;
  size_t piece;
};

/// Which rank writes which tensor: of those that hold it the one that has least to write so far.
std::vector<std::vector<PieceId>> divide_pieces(const ParameterTable& table, const Layout& layout);

class CheckpointWriter {
 public:
  /// `keep`: newest checkpoints that are kept, 0: all. `timeout_s`: how long rank 0 waits for the other ranks' files.
  /// Removes what a killed run left; the ranks must meet before anyone calls start().
  CheckpointWriter(std::string root, const Layout& layout, int rank, int64_t keep, double timeout_s);
  /// Waits.
  ~CheckpointWriter();

  /// Copies this rank's part of weights and moments, waits for the checkpoint before this one, and returns while a
  /// thread writes. Called by all ranks. `config`: the model's config.json; `tokenizer`: what copy_tokenizer takes,
  /// empty: none. Throws Error where the one before failed.
  void start(const ParameterSet& parameters, const AdamW& optimizer, nlohmann::json config, const TrainingState& state,
             const std::string& tokenizer = "");
  /// Returns when this rank's part is on the disk; on rank 0 when the checkpoint has its name. Throws Error, with the
  /// rank and its reason, where it could not be written: a full disk, say. No part of it is left then, and the
  /// checkpoints before are as they were.
  void wait();
  /// True when wait() would not have to wait.
  bool idle() const;

 private:
  struct Part;  // a copy of what this rank writes
  void write(const Part& part) const;
  void complete(const Part& part) const;

  std::string root_;
  Layout layout_;
  int rank_;
  int64_t keep_;
  double timeout_s_;
  std::future<void> writing_;
};

/// Restores weights, moments and state from the newest sound checkpoint of a folder of checkpoints, whatever layout it
/// was saved under; a damaged one is reported and the one before it taken. Called by all ranks of `world`, which divide
/// the check of the files' sums among them. Throws Error where none is sound.
TrainingState restore_checkpoint(const std::string& root, ParameterSet& parameters, AdamW& optimizer, Transport& world);

}  // namespace farskip
