#pragma once
// Samples for language-model training: seq_length + 1 tokens cut from the documents of a range, as Megatron's
// GPTDataset does with its document, sample and shuffle index.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/indexed_dataset.h"
#include "data/split.h"

namespace farskip {

struct GptDatasetOptions {
  int64_t seq_length = 0;
  int64_t num_samples = 0;  ///< 0: the samples of one pass over the text
  uint64_t seed = 1234;
  bool shuffle = true;         ///< false: documents and samples in the order of the file (validation)
  int64_t vocab_size = 0;      ///< of the model; a token at or above it is an error. 0: not checked
  std::string name = "train";  ///< in errors
};

/// The text is an endless stream: epoch after epoch, each with all tokens of the range once, its documents in an order
/// drawn for that epoch. Sample j is the tokens j*seq_length .. (j+1)*seq_length of the stream: it crosses documents
/// and epochs, and shares one token with the next (the last target, the first input). The samples that begin in one
/// epoch are handed out in an order drawn for that epoch. So every order depends on (seed, epoch) alone: a longer
/// training sees the samples of a shorter one first, and a resumed one those that it would have seen. Immutable after
/// construction; ranks that are threads share one.
class GptDataset {
 public:
  /// Throws Error where the range holds fewer than seq_length + 1 tokens.
  GptDataset(std::shared_ptr<const IndexedDataset> data, SequenceRange range, GptDatasetOptions options);

  int64_t size() const { return static_cast<int64_t>(shuffle_index_.size()); }
  int64_t seq_length() const { return options_.seq_length; }
  int64_t num_tokens() const { return num_tokens_; }
  /// Passes over the text that size() samples begin in.
  int64_t num_epochs() const { return num_epochs_; }
  const IndexedDataset& data() const { return *data_; }
  const SequenceRange& range() const { return range_; }

  /// Writes the seq_length + 1 tokens of sample i. REQUIRES: 0 <= i < size(), out.size() == seq_length() + 1. Throws
  /// Error for a token that vocab_size excludes.
  void get_sample(int64_t i, std::span<int32_t> out) const;
  std::vector<int32_t> get_sample(int64_t i) const;

 private:
  struct Position {
    int64_t document;  ///< index into document_index_
    int64_t offset;    ///< tokens into that document
  };
  /// Samples of the stream that begin before epoch `epoch`.
  int64_t samples_before(int64_t epoch) const;
  void append_epoch_documents(int64_t epoch);
  void build_sample_index(int64_t num_samples);
  void build_shuffle_index(int64_t num_samples);

  std::shared_ptr<const IndexedDataset> data_;
  SequenceRange range_;
  GptDatasetOptions options_;
  int64_t num_tokens_ = 0;
  int64_t num_epochs_ = 0;
  std::vector<int64_t> document_index_;  ///< sequences in the order of the stream
  std::vector<Position> sample_index_;   ///< where sample j of the stream begins
  std::vector<int64_t> shuffle_index_;   ///< the i-th sample handed out is sample shuffle_index_[i] of the stream
};

}  // namespace farskip
