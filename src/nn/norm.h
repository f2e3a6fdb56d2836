#pragma once
// RMSNorm, with its own backward that keeps the input once.

#include "nn/weights.h"

namespace farskip::nn {

/// RMSNorm over the last dimension (arXiv 1910.07467): x / sqrt(mean(x^2) + eps), rounded to the dtype of x, times
/// weight; sums in fp32, as Hugging Face's modules do. x [..., D], weight [D]; returns [..., D]. Keeps x and one number
/// per row.
at::Tensor rms_norm(const at::Tensor& x, const Param& weight, double eps, WeightGradQueue* queue);

/// The same without a weight (Llama-4's L2 norm).
at::Tensor rms_norm(const at::Tensor& x, double eps);

/// The same as the input of a product; with `recompute` it is made again from x where it is needed.
Input normed(const at::Tensor& x, const Param& weight, double eps, WeightGradQueue* queue, bool recompute);

}  // namespace farskip::nn
