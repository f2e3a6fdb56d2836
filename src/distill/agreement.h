#pragma once
// How far a student's predictions are from its teacher's.

#include <ATen/core/Tensor.h>

#include "transport/transport.h"

namespace farskip {

struct Agreement {
  double kl = 0;    ///< KL(teacher || student), nats a token
  double top1 = 0;  ///< share of tokens with the same likeliest token
  double num_tokens = 0;
};

/// Adds those of a batch, logits [B, S, V], to sums over tokens.
void add_tokens(Agreement& sum, const at::Tensor& teacher_logits, const at::Tensor& student_logits);
/// Means over the tokens of all ranks. Called by all of them.
Agreement mean_over_tokens(const Agreement& sum, Transport& world);

}  // namespace farskip
