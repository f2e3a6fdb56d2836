#include "nn/experts.h"

#include <ATen/ATen.h>

#include "nn/deferred.h"
#include "nn/linear.h"

namespace farskip::nn {
namespace {

/// One product per expert over its slice of rows. Reading the offsets waits for a device; a CPU reads them in place.
template <typename F>
void for_each_expert(const at::Tensor& offsets, F&& f) {
  const at::Tensor host = offsets.to(at::kCPU);
  const int64_t* offset = host.const_data_ptr<int64_t>();
  for (int64_t e = 0; e + 1 < host.size(0); ++e) f(e, offset[e], offset[e + 1] - offset[e]);
}

struct GroupedLinear : torch::autograd::Function<GroupedLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& offsets, WeightGradQueue* queue, int id, const Input* input) {
    ctx->save_for_backward({keep_input(ctx, *input, queue), weight, offsets});
    save_target(ctx, "weight", queue, id);
    const at::Tensor y = at::empty({x.size(0), weight.size(1)}, x.options());
    for_each_expert(offsets, [&](int64_t e, int64_t first, int64_t num) {
      if (num == 0) return;
      at::Tensor y_e = y.narrow(0, first, num);
      at::mm_out(y_e, x.narrow(0, first, num), weight[e].t());
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor weight = saved[1].detach(), offsets = saved[2];
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty(ctx->saved_data["sizes"].toIntVector(), dy.options());
      for_each_expert(offsets, [&](int64_t e, int64_t first, int64_t num) {
        if (num == 0) return;
        at::Tensor dx_e = dx.narrow(0, first, num);
        at::mm_out(dx_e, dy.narrow(0, first, num), weight[e]);
      });
    }
    const std::vector<int64_t> shape = weight.sizes().vec();
    auto compute = [input = kept_input(ctx, saved[0]), dy, offsets, shape] {
      const at::Tensor x = input();
      at::Tensor dweight = at::empty(shape, x.options());
      for_each_expert(offsets, [&](int64_t e, int64_t first, int64_t num) {
        at::Tensor dweight_e = dweight[e];
        if (num == 0) {
          dweight_e.zero_();
        } else {
          at::mm_out(dweight_e, dy.narrow(0, first, num).t(), x.narrow(0, first, num));
        }
      });
      return dweight;
    };
    return {dx, weight_grad(ctx, "weight", 1, compute), {}, {}, {}, {}};
  }
};

/// The same by stock operations, for a weight under whole-graph autograd.
at::Tensor stock_grouped_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& offsets) {
  std::vector<int64_t> sizes;
  for_each_expert(offsets, [&](int64_t, int64_t, int64_t num) { sizes.push_back(num); });
  const auto x_E = x.split_with_sizes(sizes);
  const auto weight_E = weight.unbind(0);
  std::vector<at::Tensor> y_E;
  for (size_t e = 0; e < sizes.size(); ++e) y_E.push_back(at::linear(x_E[e], weight_E[e]));
  return at::cat(y_E);
}

}  // namespace

at::Tensor grouped_linear(const Input& x, const Param& weight, const at::Tensor& offsets, WeightGradQueue* queue) {
  FARSKIP_CHECK(offsets.size(0) == weight.value.size(0) + 1, "offsets for another number of experts");
  if (weight.value.requires_grad()) return stock_grouped_linear(x.value, weight.value, offsets);
  check_reaches_backward(x.value, queue);
  return GroupedLinear::apply(x.value, weight.value, offsets, queue, weight.id, &x);
}

at::Tensor experts(const at::Tensor& rows, const RoutePlan& plan, const Param& gate_up, const Param& down,
                   WeightGradQueue* queue, bool recompute_activation) {
  const at::Tensor x = to_expert_order(rows, plan);
  const Input hidden = activation(grouped_linear(x, gate_up, plan.offsets, queue), recompute_activation);
  return to_arrival_order(grouped_linear(hidden, down, plan.offsets, queue), plan);
}

}  // namespace farskip::nn
