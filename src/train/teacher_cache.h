#pragma once
// A teacher's predictions on disk: for each token of each sample its likeliest successors, computed ahead of time.
// FOLDER/cache.json says of which teacher and how, FOLDER/train-0000000000.safetensors and its like hold some samples
// each and have a checksum beside them. What is there is used again; a part that is missing is computed.

#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "config/train_config.h"
#include "model/safetensors.h"
#include "nn/distill_loss.h"
#include "train/launch.h"
#include "train/sample_reader.h"

namespace farskip {

/// SHA-256 of a checkpoint folder's weights and of the connectivity they are run under.
std::string teacher_fingerprint(const TrainConfig& config);

/// Of the tokens of a sample and of the bounds of its documents: what predictions depend on.
int64_t fingerprint(const TrainSample& sample);

/// The samples of one data set ("train", "valid") in a cache. Thread-safe.
class CachedTargets {
 public:
  static constexpr int64_t samples_per_part = 256;

  CachedTargets(std::string folder, std::string name) : folder_(std::move(folder)), name_(std::move(name)) {}

  /// Where the part with sample `first` lies.
  std::string part_path(int64_t first) const;
  /// Whether that part is there, with the checksum that was noted when it was written.
  bool has_part(int64_t first, int64_t num_samples) const;

  /// Targets of sample i, rows [seq_length]. Throws Error where they are missing, damaged, or were computed for other
  /// tokens than those of `sample`.
  nn::TeacherTargets targets(int64_t i, const TrainSample& sample) const;

 private:
  std::string folder_, name_;
  mutable std::mutex mutex_;
  mutable std::map<int64_t, std::shared_ptr<const SafetensorsReader>> open_;  ///< by first sample; the newest few
};

/// Computes what is missing of `num_samples` samples; called by all ranks, which divide the parts among them. Throws
/// Error where the folder belongs to another teacher, sequence length, temperature, top_k, top_k_samples or seed, or
/// its first sample to other data; and for a full disk.
void fill_cache(const TrainConfig& config, RankContext& context, const SampleSource& samples, int64_t num_samples,
                const std::string& name);

/// The samples, each with its teacher's targets.
SampleSource with_targets(SampleSource samples, std::shared_ptr<const CachedTargets> targets);

}  // namespace farskip
