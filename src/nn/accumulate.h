#pragma once
// Adding gradients up.

#include <ATen/core/Tensor.h>

namespace farskip::nn {

/// sum += gradient, element by element, in one pass: the gradient may be bf16 where the sum is fp32 (the library would
/// first make a widened copy). Same sizes. Gives the bits of sum.add_(gradient).
void accumulate_(const at::Tensor& sum, const at::Tensor& gradient);

}  // namespace farskip::nn
