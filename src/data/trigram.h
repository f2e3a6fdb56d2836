#pragma once
// The baseline that a language model has to beat: a trigram model over tokens.

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>

#include "data/gpt_dataset.h"

namespace farskip {

/// Trigrams interpolated with bigrams, unigrams and the uniform distribution by Witten and Bell's rule (method C of
/// "The zero-frequency problem", IEEE Trans. Inf. Theory 37, 1991): with n(h) the times the context h was seen, t(h)
/// the number of distinct tokens seen after it and h' = h without its first token,
///   P(w | h) = (n(h w) + t(h) P(w | h')) / (n(h) + t(h)),   P(w | nothing left) = 1 / num_ids,
/// and P(w | h) = P(w | h') where h was never seen. Nothing is tuned; every P(. | h) sums to 1.
class TrigramModel {
 public:
  /// Tokens are 0 .. num_ids - 1, at most 2^21 of them.
  explicit TrigramModel(int64_t num_ids);

  /// Counts all n-grams of a run of tokens.
  void train(std::span<const int32_t> tokens);
  /// P(token | context); the last two tokens of the context count, it may be shorter.
  double probability(std::span<const int32_t> context, int32_t token) const;

 private:
  static constexpr size_t kMaxContext = 2;
  struct Context {
    int64_t count = 0;
    int64_t distinct = 0;
  };
  /// Contexts and n-grams with a context of one length.
  struct Level {
    std::unordered_map<uint64_t, Context> contexts;
    std::unordered_map<uint64_t, int64_t> ngrams;
  };

  int64_t num_ids_;
  std::array<Level, kMaxContext + 1> levels_;
};

/// Cross-entropy in nats per token of the trigram model, on the very tokens that a language model is judged by: the
/// seq_length targets of each of the first `num_samples` samples of `valid` (0: all), each predicted from tokens of its
/// own sample only. The model is trained on the text of `train`, every document once.
double trigram_loss(const GptDataset& train, const GptDataset& valid, int64_t num_ids, int64_t num_samples = 0);

}  // namespace farskip
