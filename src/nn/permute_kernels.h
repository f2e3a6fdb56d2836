#pragma once
// Gathers behind permute and unpermute: one parallel pass on a CPU, the same sums by library operations elsewhere.
// Legend as in permute.h; weights are in the wide type (fp32 for bf16 rows) or undefined, which means 1.

#include <ATen/core/Tensor.h>

namespace farskip::nn {

/// y[t] = sum over k, in order, of weight[t,k] * rows[index[t,k]]; an index outside [0, N) adds nothing. rows [N, D],
/// index and weight [T, K] -> [T, D].
at::Tensor gather_sum(const at::Tensor& rows, const at::Tensor& index, const at::Tensor& weight);

/// y[n] = weight[n] * x[index[n]]. x [T, D], index and weight [N] -> [N, D].
at::Tensor gather_scale(const at::Tensor& x, const at::Tensor& index, const at::Tensor& weight);

/// d[t,k] = x[t] . rows[index[t,k]] in the wide type. x [T, D], rows [N, D], index [T, K] -> [T, K].
at::Tensor gather_dot(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& index);

/// Stable counting sort of expert ids. ids [T, K] int64; fills order [N], token [N] (order / K), inverse [T, K],
/// counts [E].
struct SortedIds {
  at::Tensor order, token, inverse, counts;
};
SortedIds sort_ids(const at::Tensor& ids, int64_t num_experts);

}  // namespace farskip::nn
