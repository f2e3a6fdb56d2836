#include "nn/permute.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "nn/deferred.h"
#include "nn/permute_kernels.h"

namespace farskip::nn {
namespace {

/// Weights in row order, in the wide type of the rows.
at::Tensor row_weights(const at::Tensor& p_TK, const at::Tensor& order_N) {
  return p_TK.defined() ? p_TK.reshape({-1}).index_select(0, order_N) : at::Tensor();
}

/// Permute and Unpermute are each other's transpose: what one does forward, the other does backward.
struct Permute : torch::autograd::Function<Permute> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& p,
                            const at::Tensor& order, const at::Tensor& inverse, const at::Tensor& token) {
    ctx->save_for_backward({inverse, p ? x : at::Tensor(), p.value_or(at::Tensor())});
    return gather_scale(x, token, row_weights(p.value_or(at::Tensor()), order));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &inverse = saved[0], &x = saved[1], &p = saved[2];
    at::Tensor dx, dp;
    if (ctx->needs_input_grad(0)) dx = gather_sum(grads[0], inverse, p);
    if (p.defined() && ctx->needs_input_grad(1)) dp = gather_dot(x, grads[0], inverse);
    return {dx, dp, {}, {}, {}};
  }
};

struct Unpermute : torch::autograd::Function<Unpermute> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, const std::optional<at::Tensor>& p,
                            const at::Tensor& order, const at::Tensor& inverse, const at::Tensor& token) {
    ctx->save_for_backward({order, inverse, token, p ? rows : at::Tensor(), p.value_or(at::Tensor())});
    return gather_sum(rows, inverse, p.value_or(at::Tensor()));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &order = saved[0], &inverse = saved[1], &token = saved[2], &rows = saved[3], &p = saved[4];
    at::Tensor drows, dp;
    if (ctx->needs_input_grad(0)) drows = gather_scale(grads[0], token, row_weights(p, order));
    if (p.defined() && ctx->needs_input_grad(1)) dp = gather_dot(grads[0], rows, inverse);
    return {drows, dp, {}, {}, {}};
  }
};

/// rows[index], with the inverse permutation as its backward.
struct Reorder : torch::autograd::Function<Reorder> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows, const at::Tensor& index,
                            const at::Tensor& inverse) {
    ctx->save_for_backward({inverse});
    return rows.index_select(0, index);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {grads[0].index_select(0, ctx->get_saved_variables()[0]), {}, {}};
  }
};

std::vector<int64_t> to_host(const at::Tensor& values) {
  const at::Tensor host = values.to(at::kCPU).contiguous();
  return {host.const_data_ptr<int64_t>(), host.const_data_ptr<int64_t>() + host.numel()};
}

std::optional<at::Tensor> optional_weights(const at::Tensor& p, const at::Tensor& rows) {
  if (!p.defined()) return std::nullopt;
  return p.to(wide_type(rows));
}

}  // namespace

RoutePlan make_route_plan(const at::Tensor& ids_TK, int64_t num_experts, int64_t num_ranks) {
  if (num_ranks <= 0 || num_experts % num_ranks != 0) {
    fail("{} experts cannot be divided evenly among {} ranks: choose a divisor", num_experts, num_ranks);
  }
  RoutePlan plan;
  plan.num_tokens = ids_TK.size(0);
  plan.top_k = ids_TK.size(1);
  const SortedIds sorted = sort_ids(ids_TK, num_experts);
  plan.order = sorted.order;
  plan.inverse = sorted.inverse;
  plan.token = sorted.token;
  plan.send_counts = sorted.counts.view({num_ranks, num_experts / num_ranks});
  return plan;
}

RoutePlan make_local_plan(const at::Tensor& ids_TK, int64_t num_experts, int64_t num_ranks, int64_t rank) {
  RoutePlan plan = make_route_plan(ids_TK, num_experts, num_ranks);
  plan.send_rows = to_host(plan.send_counts.sum(1));
  const int64_t first = std::accumulate(plan.send_rows.begin(), plan.send_rows.begin() + rank, int64_t{0});
  const int64_t num_rows = plan.send_rows[rank];
  plan.recv_rows = {num_rows};
  plan.order = plan.order.narrow(0, first, num_rows);
  plan.token = plan.token.narrow(0, first, num_rows);
  if (first > 0) plan.inverse.sub_(first);
  plan.offsets = at::constant_pad_nd(plan.send_counts[rank].cumsum(0), {1, 0});
  plan.arrives_sorted = true;
  return plan;
}

void complete_route_plan(RoutePlan& plan, const at::Tensor& recv_counts) {
  FARSKIP_CHECK(recv_counts.sizes() == plan.send_counts.sizes(), "received counts have another shape than sent ones");
  const int64_t num_ranks = recv_counts.size(0), num_local = recv_counts.size(1);
  const std::vector<int64_t> sent = to_host(plan.send_counts);
  const std::vector<int64_t> counts = to_host(recv_counts);  // [source][local expert]
  plan.send_rows.assign(num_ranks, 0);
  plan.recv_rows.assign(num_ranks, 0);

  // First arrival row of every (source, expert) block; blocks arrive by source, and within a source by expert.
  std::vector<int64_t> first(num_ranks * num_local);
  int64_t num_received = 0;
  for (int64_t block = 0; block < num_ranks * num_local; ++block) {
    first[block] = num_received;
    num_received += counts[block];
    plan.send_rows[block / num_local] += sent[block];
    plan.recv_rows[block / num_local] += counts[block];
  }

  const auto options = at::TensorOptions(at::kLong);
  const at::Tensor arrival = at::empty({num_received}, options);
  const at::Tensor inverse = at::empty({num_received}, options);
  const at::Tensor offsets = at::zeros({num_local + 1}, options);
  int64_t* to_arrival = arrival.data_ptr<int64_t>();
  int64_t* from_arrival = inverse.data_ptr<int64_t>();
  int64_t row = 0;
  for (int64_t e = 0; e < num_local; ++e) {
    for (int64_t source = 0; source < num_ranks; ++source) {
      const int64_t block = source * num_local + e;
      for (int64_t i = 0; i < counts[block]; ++i, ++row) {
        to_arrival[row] = first[block] + i;
        from_arrival[first[block] + i] = row;
      }
    }
    offsets.data_ptr<int64_t>()[e + 1] = row;
  }
  const at::Device device = plan.order.device();
  plan.arrival = arrival.to(device);
  plan.arrival_inverse = inverse.to(device);
  plan.offsets = offsets.to(device);
  plan.arrives_sorted = num_ranks == 1;
}

at::Tensor permute(const at::Tensor& x, const RoutePlan& plan, const at::Tensor& p) {
  FARSKIP_CHECK(x.size(0) == plan.num_tokens, "the plan was made for another number of tokens");
  return apply<Permute>(x, optional_weights(p, x), plan.order, plan.inverse, plan.token);
}

at::Tensor unpermute(const at::Tensor& rows, const at::Tensor& p, const RoutePlan& plan) {
  FARSKIP_CHECK(rows.size(0) == plan.num_sent(), "the plan was made for another number of rows");
  return apply<Unpermute>(rows, optional_weights(p, rows), plan.order, plan.inverse, plan.token);
}

at::Tensor to_expert_order(const at::Tensor& rows, const RoutePlan& plan) {
  if (plan.arrives_sorted) return rows;
  FARSKIP_CHECK(rows.size(0) == plan.num_received(), "the plan expects another number of rows");
  return apply<Reorder>(rows, plan.arrival, plan.arrival_inverse);
}

at::Tensor to_arrival_order(const at::Tensor& rows, const RoutePlan& plan) {
  return plan.arrives_sorted ? rows : apply<Reorder>(rows, plan.arrival_inverse, plan.arrival);
}

}  // namespace farskip::nn
