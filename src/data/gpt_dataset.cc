#include "data/gpt_dataset.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/philox.h"

namespace farskip {
namespace {

/// Streams of the random numbers: two per epoch.
uint64_t document_stream(int64_t epoch) { return 2 * static_cast<uint64_t>(epoch); }
uint64_t sample_stream(int64_t epoch) { return 2 * static_cast<uint64_t>(epoch) + 1; }

std::vector<int64_t> order_of(int64_t size, const GptDatasetOptions& options, uint64_t stream) {
  if (options.shuffle) return random_permutation(size, options.seed, stream);
  std::vector<int64_t> order(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) order[static_cast<size_t>(i)] = i;
  return order;
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

GptDataset::GptDataset(std::shared_ptr<const IndexedDataset> data, SequenceRange range, GptDatasetOptions options)
    : data_(std::move(data)), range_(range), options_(std::move(options)) {
  FARSKIP_CHECK(range.begin >= 0 && range.begin <= range.end && range.end <= data_->num_sequences());
  if (options_.seq_length < 1) fail("seq_length={}: a sample needs at least one token", options_.seq_length);
  if (options_.num_samples < 0) fail("{}: {} samples asked for", options_.name, options_.num_samples);
  for (int64_t i = range.begin; i < range.end; ++i) num_tokens_ += data_->sequence_length(i);
  if (num_tokens_ <= options_.seq_length) {
    fail(
        "{}: the {} part has {} tokens in {} documents, fewer than the {} of one sample (seq_length={} and the token "
        "after it); shorten seq_length, give this part a larger share of `split`, or prepare more text or "
        "shorter documents (farskip prepare --document-separator)",
        data_->prefix(), options_.name, num_tokens_, range.size(), options_.seq_length + 1, options_.seq_length);
  }
  const int64_t one_pass = (num_tokens_ - 1) / options_.seq_length;
  const int64_t num_samples = options_.num_samples > 0 ? options_.num_samples : one_pass;
  num_epochs_ = (num_samples - 1) * options_.seq_length / num_tokens_ + 1;
  build_shuffle_index(num_samples);
  build_sample_index(1 + *std::max_element(shuffle_index_.begin(), shuffle_index_.end()));
}

int64_t GptDataset::samples_before(int64_t epoch) const { return divide_up(epoch * num_tokens_, options_.seq_length); }

void GptDataset::build_shuffle_index(int64_t num_samples) {
  shuffle_index_.reserve(static_cast<size_t>(num_samples));
  for (int64_t epoch = 0; epoch < num_epochs_; ++epoch) {
    const int64_t first = samples_before(epoch);
    int64_t in_epoch = samples_before(epoch + 1) - first;
    // One pass stays inside the text: its last sample must not cross into a second epoch.
    if (options_.num_samples == 0) in_epoch = num_samples;
    const int64_t taken = std::min(in_epoch, num_samples - first);
    const std::vector<int64_t> order = order_of(in_epoch, options_, sample_stream(epoch));
    for (int64_t i = 0; i < taken; ++i) shuffle_index_.push_back(first + order[static_cast<size_t>(i)]);
  }
}

void GptDataset::append_epoch_documents(int64_t epoch) {
  for (const int64_t document : order_of(range_.size(), options_, document_stream(epoch))) {
    document_index_.push_back(range_.begin + document);
  }
}

void GptDataset::build_sample_index(int64_t num_samples) {
  // The last token of the last sample may lie in an epoch of its own.
  const int64_t num_document_epochs = num_samples * options_.seq_length / num_tokens_ + 1;
  document_index_.reserve(static_cast<size_t>(num_document_epochs * range_.size()));
  for (int64_t epoch = 0; epoch < num_document_epochs; ++epoch) append_epoch_documents(epoch);

  sample_index_.reserve(static_cast<size_t>(num_samples));
  Position position{0, 0};
  for (int64_t sample = 0; sample < num_samples; ++sample) {
    int64_t length = data_->sequence_length(document_index_[static_cast<size_t>(position.document)]);
    while (position.offset >= length) {
      position.offset -= length;
      ++position.document;
      length = data_->sequence_length(document_index_[static_cast<size_t>(position.document)]);
    }
    sample_index_.push_back(position);
    position.offset += options_.seq_length;
  }
}

void GptDataset::get_sample(int64_t i, std::span<int32_t> out) const {
  FARSKIP_CHECK(i >= 0 && i < size());
  FARSKIP_CHECK(static_cast<int64_t>(out.size()) == options_.seq_length + 1);
  Position position = sample_index_[static_cast<size_t>(shuffle_index_[static_cast<size_t>(i)])];
  std::span<int32_t> rest = out;
  while (!rest.empty()) {
    const int64_t sequence = document_index_[static_cast<size_t>(position.document)];
    const int64_t available = data_->sequence_length(sequence) - position.offset;
    const size_t taken = std::min(rest.size(), static_cast<size_t>(available));
    data_->read(sequence, position.offset, rest.first(taken));
    rest = rest.subspan(taken);
    position = {position.document + 1, 0};
  }
  if (options_.vocab_size == 0) return;
  for (const int32_t token : out) {
    if (token >= options_.vocab_size) {
      fail("{}: token id {}, but the model has vocab_size={}; prepare the data with the model's tokenizer",
           data_->prefix(), token, options_.vocab_size);
    }
  }
}

std::vector<int32_t> GptDataset::get_sample(int64_t i) const {
  std::vector<int32_t> tokens(static_cast<size_t>(options_.seq_length + 1));
  get_sample(i, tokens);
  return tokens;
}

}  // namespace farskip
