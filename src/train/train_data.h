#pragma once
// From a recipe to samples.

#include "config/train_config.h"
#include "data/gpt_dataset.h"
#include "train/launch.h"
#include "train/session.h"
#include "train/teacher_cache.h"

namespace farskip {

/// Data of a recipe: training and validation samples.
struct TrainData {
  std::shared_ptr<const SampleDataset> train, valid;  ///< valid: null where the split has none
  /// Throws Error for what the files or the split lack.
  static TrainData open(const TrainConfig& config, int64_t vocab_size);
  /// Of a distillation with a cache: the teacher's targets of both parts.
  std::shared_ptr<const CachedTargets> train_targets = nullptr, valid_targets = nullptr;
  bool masked = false;                           ///< not every prediction counts
  std::vector<int32_t> calibration_tokens = {};  ///< of a distillation that calibrates on a text of its own
  std::string vocabulary;  ///< the data set whose tokenizer saved models get (common_vocabulary); empty: none
};
/// Training and validation samples of a recipe, with a teacher's targets where it has a cache; otherwise as
/// samples_of(). REQUIRES: the part is there.
SampleSource train_samples(const TrainData& data);
SampleSource valid_samples(const TrainData& data);
/// Validation samples of one evaluation.
int64_t num_evaluated(const TrainConfig& config, const TrainData& data);
/// Computes what a distillation's cache lacks, and opens it; called by all ranks. Other data come back as they are.
TrainData with_cache(const TrainConfig& config, TrainData data, RankContext& context);
/// With a loss mask where the recipe's data has one, and the bounds and positions of documents where a sample has
/// several.
SampleSource samples_of(std::shared_ptr<const SampleDataset> dataset, bool masked);

}  // namespace farskip
