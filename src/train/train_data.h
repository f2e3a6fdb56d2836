#pragma once
// From a recipe to samples.

#include "config/train_config.h"
#include "data/gpt_dataset.h"
#include "train/session.h"

namespace farskip {

/// Data of a recipe: training and validation samples.
struct TrainData {
  std::shared_ptr<const SampleDataset> train, valid;  ///< valid: null where the split has none
  /// Throws Error for what the files or the split lack.
  static TrainData open(const TrainConfig& config, int64_t vocab_size);
  bool masked = false;     ///< not every prediction counts
  std::string vocabulary;  ///< the data set whose tokenizer saved models get (common_vocabulary); empty: none
};
/// With a loss mask where the recipe's data has one, and the bounds and positions of documents where a sample has
/// several.
SampleSource samples_of(std::shared_ptr<const SampleDataset> dataset, bool masked);

}  // namespace farskip
