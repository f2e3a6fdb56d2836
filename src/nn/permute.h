#pragma once
// Tokens to the rows that travel to experts, and back. T tokens, K choices of each, E experts in E/R-sized blocks over
// R ranks, R destinations, N = T*K rows sent, M rows received, D hidden size. Only sorted gathers, never a scatter-add,
// so every sum has a fixed order (over k) on every device.

#include <ATen/core/Tensor.h>

#include <vector>

namespace farskip::nn {

/// Where every row goes, built once per layer and used by dispatch, combine and both their backward passes.
/// The first half is known after the gate, the second after the ranks have exchanged `send_counts`.
struct RoutePlan {
  int64_t num_tokens = 0;
  int64_t top_k = 0;
  at::Tensor order;        ///< [N] int64: row, sorted by expert (stably) -> flat choice t*K + k
  at::Tensor inverse;      ///< [T, K] int64: choice -> row; of a local plan outside [0, N) for other ranks' experts
  at::Tensor token;        ///< [N] int64: row -> token, order / K
  at::Tensor send_counts;  ///< [R, E/R] int64: rows for each expert, by the rank that holds it

  std::vector<int64_t> send_rows;  ///< [R] rows to each rank
  std::vector<int64_t> recv_rows;  ///< [R] rows from each rank
  at::Tensor arrival;              ///< [M] int64: expert-major row -> row as it arrived (by source, then expert)
  at::Tensor arrival_inverse;      ///< [M] int64: row as it arrived -> expert-major row
  at::Tensor offsets;              ///< [E/R + 1] int64: first expert-major row of each local expert, and M
  bool arrives_sorted = false;     ///< one source only: arrival is the identity (of a local plan undefined)

  int64_t num_sent() const { return order.size(0); }
  int64_t num_received() const { return arrival.size(0); }
};

/// ids [T, K] int64, distinct in each row. Throws Error where experts cannot be divided by ranks.
RoutePlan make_route_plan(const at::Tensor& ids, int64_t num_experts, int64_t num_ranks);

/// The whole plan of rank `rank` where all ranks have all tokens and each works for its own experts (no row travels):
/// N are the rows of its experts alone, so that unpermute() gives this rank's part of every sum.
RoutePlan make_local_plan(const at::Tensor& ids, int64_t num_experts, int64_t num_ranks, int64_t rank);

/// Adds the second half. `recv_counts` [R, E/R] int64: row r holds what source r sends to each local expert, that is,
/// this rank's row of source r's send_counts. Waits for the device. With one rank recv_counts is send_counts.
void complete_route_plan(RoutePlan& plan, const at::Tensor& recv_counts);

/// x [T, D] -> rows [N, D] sorted by expert; with p [T, K] each row is multiplied by its weight (Llama-4).
/// Backward: sum over k in order, accumulated in fp32.
at::Tensor permute(const at::Tensor& x, const RoutePlan& plan, const at::Tensor& p = {});

/// rows [N, D] -> y [T, D] = sum over k of p[t,k] * row(t,k), in order of k, accumulated in fp32. p [T, K] fp32, or
/// undefined for a plain sum (Llama-4). Differentiable in rows and p.
at::Tensor unpermute(const at::Tensor& rows, const at::Tensor& p, const RoutePlan& plan);

/// rows [M, D]: from arrival to expert-major order and back. Differentiable.
at::Tensor to_expert_order(const at::Tensor& rows, const RoutePlan& plan);
at::Tensor to_arrival_order(const at::Tensor& rows, const RoutePlan& plan);

}  // namespace farskip::nn
