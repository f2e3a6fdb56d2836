#pragma once
// The routed experts that one rank holds. M received rows, D hidden size, F width, E local experts.

#include "nn/permute.h"
#include "nn/weights.h"

namespace farskip::nn {

/// y[m] = W_e x[m] for the rows offsets[e] <= m < offsets[e+1] of each expert. x [M, in], weight [E, out, in], offsets
/// [E+1] int64; returns [M, out]. An expert without rows gets a zero gradient; M may be 0.
at::Tensor grouped_linear(const Input& x, const Param& weight, const at::Tensor& offsets, WeightGradQueue* queue);

/// rows [M, D] in the order of arrival -> their experts' outputs [M, D] in the same order. gate_up [E, 2F, D], down
/// [E, D, F]; the plan is complete. `recompute_activation`: see activation().
at::Tensor experts(const at::Tensor& rows, const RoutePlan& plan, const Param& gate_up, const Param& down,
                   WeightGradQueue* queue, bool recompute_activation = false);

}  // namespace farskip::nn
