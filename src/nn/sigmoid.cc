#include "nn/sigmoid.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/deferred.h"
#include "nn/for_machine.h"

namespace farskip::nn {
namespace {

struct Sigmoid : torch::autograd::Function<Sigmoid> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in) {
    const at::Tensor x = x_in.detach().contiguous();
    at::Tensor y = at::empty_like(x);
    if (!x.device().is_cpu()) {
      at::sigmoid_out(y, x);
    } else {
      AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x.scalar_type(), "sigmoid", [&] {
        using wide_t = at::opmath_type<scalar_t>;
        const scalar_t* in = x.const_data_ptr<scalar_t>();
        scalar_t* out = y.data_ptr<scalar_t>();
        parallel_rows(x.numel(), 1, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
          for (int64_t i = begin; i < end; ++i) out[i] = static_cast<scalar_t>(logistic(static_cast<wide_t>(in[i])));
        });
      });
    }
    ctx->save_for_backward({y});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {at::sigmoid_backward(grads[0], ctx->get_saved_variables()[0])};
  }
};

}  // namespace

at::Tensor sigmoid(const at::Tensor& x) { return apply<Sigmoid>(x); }

}  // namespace farskip::nn
