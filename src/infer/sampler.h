#pragma once
// How the next token is drawn from logits.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "infer/sampling_options.h"

namespace farskip {

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
