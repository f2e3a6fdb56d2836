#pragma once
// Samples for language-model training: seq_length + 1 tokens cut from the documents of a range, as Megatron's
// GPTDataset does with its document, sample and shuffle index.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/index_file.h"
#include "data/indexed_dataset.h"
#include "data/samples.h"
#include "data/split.h"

namespace farskip {

struct GptDatasetOptions {
  int64_t seq_length = 0;
  int64_t num_samples = 0;  ///< 0: the samples of one pass over the text
  uint64_t seed = 1234;
  bool shuffle = true;               ///< false: documents and samples in the order of the file (validation)
  int64_t vocab_size = 0;            ///< of the model; a token at or above it is an error. 0: not checked
  std::string name = "train";        ///< in errors and in the name of the index file
  std::string data_cache_path = {};  ///< folder of the index files; empty: PREFIX/cache, beside the data
  SampleOptions sample = {};
  /// 0 for tokens that are no targets, sequence by sequence as long as the text (farskip prepare --format chat writes
  /// it); null: all are.
  std::shared_ptr<const IndexedDataset> target_mask = nullptr;
};

/// The text is an endless stream: epoch after epoch, each with all tokens of the range once, its documents in an order
/// drawn for that epoch. Sample j is the tokens j*seq_length .. (j+1)*seq_length of the stream: it crosses documents
/// and epochs, and shares one token with the next (the last target, the first input). The samples that begin in one
/// epoch are handed out in an order drawn for that epoch (Megatron does so for a last epoch that is used in part, so
/// that its samples do not mix with those of full epochs). So every order depends on (seed, epoch) alone: sample i is a
/// function of (seed, i), a longer training sees the samples of a shorter one first, and a resumed one those that it
/// would have seen. Immutable after construction; ranks that are threads share one. The three orders (32 bytes per
/// sample and 8 per document, for every epoch) lie in an IndexFile: memory does not grow with the text.
class GptDataset : public SampleDataset {
 public:
  /// Throws Error where the range holds fewer than seq_length + 1 tokens, or target_mask has other lengths.
  GptDataset(std::shared_ptr<const IndexedDataset> data, SequenceRange range, GptDatasetOptions options);

  int64_t size() const override { return num_samples_; }
  int64_t seq_length() const override { return options_.seq_length; }
  int64_t num_tokens() const { return num_tokens_; }
  /// Passes over the text that size() samples begin in.
  int64_t num_epochs() const { return num_epochs_; }
  const IndexedDataset& data() const { return *data_; }
  const SequenceRange& range() const { return range_; }
  const std::string& index_path() const { return index_.path(); }

  Sample sample(int64_t i) const override;

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
  /// Of the stream, as far as the index files know it.
  int64_t num_stream_samples() const;
  void open_index();
  std::string description() const;
  void fill_documents(std::span<int64_t> document_index) const;
  void fill_samples(std::span<const int64_t> document_index, std::span<Position> sample_index) const;
  void fill_shuffle(std::span<int64_t> shuffle_index) const;
  /// Copies values of `from`, which has the sequences of data_, for sample i.
  void read(const IndexedDataset& from, int64_t i, std::span<int32_t> out) const;

  std::shared_ptr<const IndexedDataset> data_;
  SequenceRange range_;
  GptDatasetOptions options_;
  int64_t num_tokens_ = 0;
  int64_t num_samples_ = 0;
  int64_t num_epochs_ = 0;
  IndexFile index_;
  std::span<const int64_t> document_index_;  ///< sequences in the order of the stream
  std::span<const Position> sample_index_;   ///< where sample j of the stream begins
  std::span<const int64_t> shuffle_index_;   ///< the i-th sample handed out is sample shuffle_index_[i] of the stream
};

/// Samples of one pass over a range of num_tokens tokens.
inline int64_t samples_in_one_pass(int64_t num_tokens, int64_t seq_length) { return (num_tokens - 1) / seq_length; }

}  // namespace farskip
