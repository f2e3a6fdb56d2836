#pragma once
// The sigmoid, of routers and of gated attention.

#include <ATen/core/Tensor.h>

namespace farskip::nn {

/// 1 / (1 + e^-x), differentiable. On a CPU an element's bits depend on it alone; the library's also depend on its
/// place in memory, and so on how many rows there are.
at::Tensor sigmoid(const at::Tensor& x);

}  // namespace farskip::nn
