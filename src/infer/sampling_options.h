#pragma once
// What a request may say about how its tokens are drawn.

#include <cstdint>

namespace farskip {

/// Names and meaning are vLLM's, OpenAI's where it has them. The order: penalties, temperature, min_p, top_k, top_p.
struct SamplingOptions {
  double temperature = 0;         ///< 0: the likeliest token, the lower id among equals
  int64_t top_k = 0;              ///< only the k likeliest; 0: all
  double top_p = 1;               ///< only the likeliest that together reach this probability
  double min_p = 0;               ///< only those at least this times as likely as the likeliest
  double repetition_penalty = 1;  ///< logits of tokens seen (prompt included) are divided by this, below 0 multiplied
  double presence_penalty = 0;    ///< subtracted from logits of tokens made before
  double frequency_penalty = 0;   ///< the same, for each time they were made
  uint64_t seed = 1234;

  /// Throws Error for values outside their range.
  void check() const;
};

}  // namespace farskip
