#include "data/trigram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace farskip {
namespace {

constexpr int kBitsPerToken = 21;

/// A short run of tokens as one number.
uint64_t key_of(std::span<const int32_t> tokens) {
  uint64_t key = 0;
  for (const int32_t token : tokens) key = key << kBitsPerToken | static_cast<uint64_t>(token);
  return key;
}

}  // namespace

TrigramModel::TrigramModel(int64_t num_ids) : num_ids_(num_ids) {
  FARSKIP_CHECK(num_ids >= 1 && num_ids <= int64_t{1} << kBitsPerToken);
}

void TrigramModel::train(std::span<const int32_t> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= num_ids_) {
      fail("the trigram model counts ids below {}, but the text has {}", num_ids_, tokens[i]);
    }
    for (size_t length = 0; length <= std::min(i, kMaxContext); ++length) {
      Level& level = levels_[length];
      const bool is_new = ++level.ngrams[key_of(tokens.subspan(i - length, length + 1))] == 1;
      Context& context = level.contexts[key_of(tokens.subspan(i - length, length))];
      ++context.count;
      if (is_new) ++context.distinct;
    }
  }
}

double TrigramModel::probability(std::span<const int32_t> context, int32_t token) const {
  FARSKIP_CHECK(token >= 0 && token < num_ids_);
  double shorter = 1.0 / static_cast<double>(num_ids_);
  const size_t longest = std::min(context.size(), kMaxContext);
  for (size_t length = 0; length <= longest; ++length) {
    const Level& level = levels_[length];
    const uint64_t history = key_of(context.last(length));
    const auto seen = level.contexts.find(history);
    if (seen == level.contexts.end()) break;
    const auto ngram = level.ngrams.find(history << kBitsPerToken | static_cast<uint64_t>(token));
    const double count = ngram == level.ngrams.end() ? 0.0 : static_cast<double>(ngram->second);
    const double distinct = static_cast<double>(seen->second.distinct);
    shorter = (count + distinct * shorter) / (static_cast<double>(seen->second.count) + distinct);
  }
  return shorter;
}

double trigram_loss(const GptDataset& train, const GptDataset& valid, int64_t num_ids, int64_t num_samples) {
  std::vector<int32_t> text;
  text.reserve(static_cast<size_t>(train.num_tokens()));
  for (int64_t i = train.range().begin; i < train.range().end; ++i) {
    const std::vector<int32_t> document = train.data().sequence(i);
    text.insert(text.end(), document.begin(), document.end());
  }
  TrigramModel model(num_ids);
  model.train(text);

  if (num_samples == 0) num_samples = valid.size();
  FARSKIP_CHECK(num_samples <= valid.size());
  double sum = 0.0;
  for (int64_t i = 0; i < num_samples; ++i) {
    const std::vector<int32_t> sample = valid.get_sample(i);
    const std::span<const int32_t> tokens(sample);
    for (size_t at = 1; at < tokens.size(); ++at) sum -= std::log(model.probability(tokens.first(at), tokens[at]));
  }
  return sum / static_cast<double>(num_samples * valid.seq_length());
}

}  // namespace farskip
