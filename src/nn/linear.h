#pragma once
// Projections, the embedding and the SwiGLU feed-forward. T tokens (any leading dimensions), D hidden size, F width.

#include "nn/weights.h"

namespace farskip::nn {

/// y = x W^T + b. x [..., in], weight [out, in], bias [out] or undefined; returns [..., out] in the dtype of x.
at::Tensor linear(const Input& x, const Param& weight, const Param& bias, WeightGradQueue* queue);
inline at::Tensor linear(const Input& x, const Param& weight, WeightGradQueue* queue) {
  return linear(x, weight, Param{}, queue);
}

/// Rows of the table: ids [...] int64 -> [..., D]. The gradient of the table is summed in fp32 in the order of the ids.
/// With a queue the result is part of a graph although ids cannot be differentiated. Throws Error for an id outside [0,
/// V).
at::Tensor embedding(const at::Tensor& ids, const Param& table, WeightGradQueue* queue);

/// silu(gate) * up. gate_up [..., 2F], gate first; returns [..., F]. Only gate_up is kept for backward. On a CPU in one
/// pass, in fp32 and rounded once.
at::Tensor swiglu(const at::Tensor& gate_up);

/// The same as the input of a product; with `recompute` it is made again from gate_up where it is needed.
Input activation(const at::Tensor& gate_up, bool recompute);

/// down(swiglu(gate_up(x))): a dense layer's feed-forward or the shared experts. x [..., D] -> [..., D].
at::Tensor feed_forward(const Input& x, const FeedForwardWeights& weights, WeightGradQueue* queue,
                        bool recompute_activation = false);

}  // namespace farskip::nn
