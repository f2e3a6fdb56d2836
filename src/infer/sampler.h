#pragma once
// How the next token is drawn from logits.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

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

/// Draws one sequence's tokens. The n-th draw depends on options, stream, n and the logits alone.
class Sampler {
 public:
  /// As it is behind `drawn`, the tokens that next() has given before.
  Sampler(const SamplingOptions& options, uint64_t stream, const std::vector<int32_t>& prompt,
          const std::vector<int32_t>& drawn = {});

  /// logits [V] fp32, on the host.
  int32_t next(const at::Tensor& logits);

 private:
  void penalize(std::vector<float>& logits) const;

  SamplingOptions options_;
  uint64_t stream_;
  uint64_t num_drawn_ = 0;
  std::unordered_map<int32_t, int64_t> made_;  ///< how often; 0: in the prompt alone
};

}  // namespace farskip
