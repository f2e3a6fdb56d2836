#pragma once
// The arithmetic of AdamW (arXiv 1711.05101) on a run of elements.

#include <ATen/core/Tensor.h>

namespace farskip::nn {

struct AdamWStep {
  double lr, beta1, beta2, eps, weight_decay;
  double gradient_divisor = 1;  ///< what clipping divides the gradient by
  int64_t step = 1;             ///< counts from 1, for the bias corrections
};

/// One update in place of main, exp_avg and exp_avg_sq, all fp32, contiguous and of the size of `gradient`. On a CPU an
/// element's bits depend on nothing but the element: not on its place, the number of threads, or how a parameter was
/// cut. (torch's fused kernel rounds the last elements of each piece differently.)
void adamw_(const at::Tensor& main, const at::Tensor& gradient, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
            const AdamWStep& options);

/// The sum of x's squares, in fp64. x: a contiguous run of fp32. Its bits do not depend on threads.
double squared_norm(const at::Tensor& x);

}  // namespace farskip::nn
