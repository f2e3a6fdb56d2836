#include "nn/experts.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "nn/deferred.h"
#include "nn/inference_weight.h"
#include "nn/linear.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

/// f(expert, first row, rows) for each of E experts with weights [E, O, I]. On a CPU whole experts are divided among
/// threads where there is enough to do, each product running on one thread: most have too few rows to be worth
/// dividing. An expert with more rows than a thread's share of all goes first, on all threads. Elsewhere reading the
/// offsets waits for the device. f calls library operations on detached tensors.
template <typename F>
void for_each_expert(const at::Tensor& offsets, at::IntArrayRef weights_EOI, F&& f) {
  const at::Tensor host = offsets.to(at::kCPU);
  const int64_t* offset = host.const_data_ptr<int64_t>();
  const int64_t num_experts = host.size(0) - 1, num_rows = offset[num_experts];
  const bool worth_it = num_rows * weights_EOI[1] * weights_EOI[2] >= 1 << 20;
  const int64_t num_parts = offsets.device().is_cpu() && worth_it ? at::get_num_threads() : 1;
  auto rows_of = [&](int64_t e) { return offset[e + 1] - offset[e]; };
  auto is_large = [&](int64_t e) { return rows_of(e) * num_parts > num_rows; };
  auto run = [&](int64_t begin, int64_t end, bool large) {
    for (int64_t e = begin; e < end; ++e) {
      if (is_large(e) == large) f(e, offset[e], rows_of(e));
    }
  };
  run(0, num_experts, true);
  // Part i of n ends with the first expert behind which i+1 parts of n of the rows lie.
  std::vector<int64_t> bounds(num_parts + 1, num_experts);
  for (int64_t i = 0; i < num_parts; ++i)
    bounds[i] = std::lower_bound(offset, offset + num_experts, (num_rows * i + num_parts - 1) / num_parts) - offset;
  bounds[0] = 0;
  at::parallel_for(0, num_parts, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // the mode is each thread's own
    run(bounds[begin], bounds[end], false);
  });
}

struct GroupedLinear : torch::autograd::Function<GroupedLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& offsets, WeightGradQueue* queue, int id, const Input* input) {
    ctx->save_for_backward({keep_input(ctx, *input, queue), weight, offsets});
    save_target(ctx, "weight", queue, id);
    const at::Tensor y = at::empty({x.size(0), weight.size(1)}, x.options());
    const at::Tensor x_MI = x.detach(), weight_EOI = weight.detach();
    for_each_expert(offsets, weight.sizes(), [&](int64_t e, int64_t first, int64_t num) {
      if (num == 0) return;
      tiles::product(y.narrow(0, first, num), x_MI.narrow(0, first, num), weight_EOI[e].t());
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor weight = saved[1].detach(), offsets = saved[2];
    const at::Tensor dy = grads[0].detach().contiguous();
    at::Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty(ctx->saved_data["sizes"].toIntVector(), dy.options());
      for_each_expert(offsets, weight.sizes(), [&](int64_t e, int64_t first, int64_t num) {
        if (num == 0) return;
        tiles::product(dx.narrow(0, first, num), dy.narrow(0, first, num), weight[e]);
      });
    }
    const std::vector<int64_t> shape = weight.sizes().vec();
    auto compute = [input = kept_input(ctx, saved[0]), dy, offsets, shape] {
      const at::Tensor x = input();
      at::Tensor dweight = at::empty(shape, x.options());
      for_each_expert(offsets, shape, [&](int64_t e, int64_t first, int64_t num) {
        if (num == 0) {
          dweight[e].zero_();
        } else {
          tiles::product(dweight[e], dy.narrow(0, first, num).t(), x.narrow(0, first, num));
        }
      });
      return dweight;
    };
    return {dx, weight_grad(ctx, "weight", 1, compute), {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor grouped_linear(const Input& x, const Param& weight, const at::Tensor& offsets, WeightGradQueue* queue) {
  if (weight.prepared) {
    return weight.prepared->weight.multiply_experts(x.value, offsets.to(at::kCPU), weight.prepared->options);
  }
  FARSKIP_CHECK(offsets.size(0) == weight.value.size(0) + 1, "offsets for another number of experts");
  if (!weight.value.requires_grad()) check_reaches_backward(x.value, queue);
  return apply<GroupedLinear>(x.value, weight.value, offsets, queue, weight.id, &x);
}

at::Tensor experts(const at::Tensor& rows, const RoutePlan& plan, const Param& gate_up, const Param& down,
                   WeightGradQueue* queue, bool recompute_activation) {
  const at::Tensor x = to_expert_order(rows, plan);
  const Input hidden = activation(grouped_linear(x, gate_up, plan.offsets, queue), recompute_activation);
  return to_arrival_order(grouped_linear(hidden, down, plan.offsets, queue), plan);
}

}  // namespace farskip::nn
