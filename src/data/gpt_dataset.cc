#include "data/gpt_dataset.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/philox.h"

namespace farskip {
namespace {

/// Streams of the random numbers: two per epoch.
uint64_t document_stream(int64_t epoch) { return 2 * static_cast<uint64_t>(epoch); }
uint64_t sample_stream(int64_t epoch) { return 2 * static_cast<uint64_t>(epoch) + 1; }

void fill_order(std::span<int64_t> order, const GptDatasetOptions& options, uint64_t stream) {
  if (options.shuffle) {
    random_permutation(order, options.seed, stream);
  } else {
    std::iota(order.begin(), order.end(), 0);
  }
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

GptDataset::GptDataset(std::shared_ptr<const IndexedDataset> data, SequenceRange range, GptDatasetOptions options)
    : data_(std::move(data)), range_(range), options_(std::move(options)) {
  FARSKIP_CHECK(range.begin >= 0 && range.begin <= range.end && range.end <= data_->num_sequences());
  if (options_.seq_length < 1) fail("seq_length={}: a sample needs at least one token", options_.seq_length);
  if (options_.num_samples < 0) fail("{}: {} samples asked for", options_.name, options_.num_samples);
  num_tokens_ = data_->num_tokens(range);
  if (num_tokens_ <= options_.seq_length) {
    fail(
        "{}: the {} part has {} tokens in {} documents, fewer than the {} of one sample (seq_length={} and the token "
        "after it); shorten seq_length, give this part a larger share of `split`, or prepare more text or "
        "shorter documents (farskip prepare --document-separator)",
        data_->prefix(), options_.name, num_tokens_, range.size(), options_.seq_length + 1, options_.seq_length);
  }
  if (options_.target_mask && !options_.target_mask->has_lengths_of(*data_)) {
    fail(
        "{}: its sequences have other lengths than those of {}; the two do not belong together, prepare the data again",
        options_.target_mask->prefix(), data_->prefix());
  }
  num_samples_ =
      options_.num_samples > 0 ? options_.num_samples : samples_in_one_pass(num_tokens_, options_.seq_length);
  num_epochs_ = (num_samples_ - 1) * options_.seq_length / num_tokens_ + 1;
  open_index();
}

int64_t GptDataset::samples_before(int64_t epoch) const { return divide_up(epoch * num_tokens_, options_.seq_length); }

int64_t GptDataset::num_stream_samples() const {
  // One pass stays inside the text: its last sample must not cross into a second epoch.
  return options_.num_samples == 0 ? num_samples_ : samples_before(num_epochs_);
}

std::string GptDataset::description() const {
  return fmt::format(
      "GptDataset index, version 1\nsequences {} to {}\nlengths {}\nseq_length {}\nsamples {}\nepochs {}\norder {}\n",
      range_.begin, range_.end, data_->lengths_digest(range_), options_.seq_length, num_stream_samples(), num_epochs_,
      options_.shuffle ? fmt::format("seed {}", options_.seed) : "of the file");
}

void GptDataset::open_index() {
  const int64_t num_samples = num_stream_samples();
  // The last token of the last sample may lie in an epoch of its own.
  const int64_t num_documents = (num_samples * options_.seq_length / num_tokens_ + 1) * range_.size();
  const int64_t samples_at = num_documents * static_cast<int64_t>(sizeof(int64_t));
  const int64_t shuffle_at = samples_at + num_samples * static_cast<int64_t>(sizeof(Position));
  const int64_t num_bytes = shuffle_at + num_samples * static_cast<int64_t>(sizeof(int64_t));
  const std::string folder =
      options_.data_cache_path.empty() ? index_folder(data_->prefix()) : options_.data_cache_path;
  index_ = IndexFile(folder, options_.name, description(), num_bytes, [&](std::span<std::byte> bytes) {
    const std::span<int64_t> documents = view_of<int64_t>(bytes, 0, num_documents);
    fill_documents(documents);
    fill_samples(documents, view_of<Position>(bytes, samples_at, num_samples));
    fill_shuffle(view_of<int64_t>(bytes, shuffle_at, num_samples));
  });
  document_index_ = index_.array<int64_t>(0, num_documents);
  sample_index_ = index_.array<Position>(samples_at, num_samples);
  shuffle_index_ = index_.array<int64_t>(shuffle_at, num_samples);
}

void GptDataset::fill_documents(std::span<int64_t> document_index) const {
  const auto per_epoch = static_cast<size_t>(range_.size());
  for (int64_t epoch = 0; !document_index.empty(); ++epoch) {
    fill_order(document_index.first(per_epoch), options_, document_stream(epoch));
    for (int64_t& document : document_index.first(per_epoch)) document += range_.begin;
    document_index = document_index.subspan(per_epoch);
  }
}

void GptDataset::fill_samples(std::span<const int64_t> document_index, std::span<Position> sample_index) const {
  Position position{0, 0};
  for (Position& start : sample_index) {
    int64_t length = data_->sequence_length(document_index[static_cast<size_t>(position.document)]);
    while (position.offset >= length) {
      position.offset -= length;
      ++position.document;
      length = data_->sequence_length(document_index[static_cast<size_t>(position.document)]);
    }
    start = position;
    position.offset += options_.seq_length;
  }
}

void GptDataset::fill_shuffle(std::span<int64_t> shuffle_index) const {
  const auto total = static_cast<int64_t>(shuffle_index.size());
  for (int64_t epoch = 0; epoch < num_epochs_; ++epoch) {
    const int64_t first = samples_before(epoch);
    const int64_t last = std::min(samples_before(epoch + 1), total);
    const auto order = shuffle_index.subspan(static_cast<size_t>(first), static_cast<size_t>(last - first));
    fill_order(order, options_, sample_stream(epoch));
    for (int64_t& sample : order) sample += first;
  }
}

void GptDataset::read(const IndexedDataset& from, int64_t i, std::span<int32_t> out) const {
  FARSKIP_CHECK(i >= 0 && i < size());
  FARSKIP_CHECK(static_cast<int64_t>(out.size()) == options_.seq_length + 1);
  const auto damaged = [&] { fail("{}: damaged; delete it, it is built anew", index_.path()); };
  const int64_t stream_sample = shuffle_index_[static_cast<size_t>(i)];
  if (stream_sample < 0 || stream_sample >= num_stream_samples()) damaged();
  Position position = sample_index_[static_cast<size_t>(stream_sample)];
  for (std::span<int32_t> rest = out; !rest.empty(); position = {position.document + 1, 0}) {
    if (position.document < 0 || position.document >= static_cast<int64_t>(document_index_.size())) damaged();
    const int64_t sequence = document_index_[static_cast<size_t>(position.document)];
    if (sequence < range_.begin || sequence >= range_.end) damaged();
    const int64_t available = data_->sequence_length(sequence) - position.offset;
    if (position.offset < 0 || available < 0) damaged();
    const size_t taken = std::min(rest.size(), static_cast<size_t>(available));
    from.read(sequence, position.offset, rest.first(taken));
    rest = rest.subspan(taken);
  }
}

void GptDataset::get_sample(int64_t i, std::span<int32_t> out) const {
  read(*data_, i, out);
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

Sample GptDataset::sample(int64_t i) const {
  std::vector<int32_t> mask;
  if (options_.target_mask) {
    mask.resize(static_cast<size_t>(options_.seq_length + 1));
    read(*options_.target_mask, i, mask);
  }
  return make_sample(get_sample(i), mask, options_.sample);
}

}  // namespace farskip
