#pragma once
// The training loss.

#include <ATen/core/Tensor.h>

namespace farskip::nn {

/// Targets with this id count for nothing.
inline constexpr int64_t ignored_target = -100;

/// Next-token cross-entropy in fp32: the sum over tokens of -log softmax(logits)[target], divided by `denominator` (the
/// number of tokens over which the step takes its mean, which may span microbatches and ranks). logits [T, V], targets
/// [T] int64; returns an fp32 scalar. Keeps the logits and one number per token. Throws Error for a target outside [0,
/// V).
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets, double denominator);

}  // namespace farskip::nn
