// SwiGLU's activation, forward and backward in one pass each. F width of the feed-forward, rows of any number.

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/deferred.h"
#include "nn/for_machine.h"
#include "nn/linear.h"

namespace farskip::nn {
namespace {

/// y = silu(gate) * up in the wide type, rounded once.
at::Tensor swiglu_forward(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(-1) / 2;
  if (!gate_up.device().is_cpu()) return at::silu(gate_up.narrow(-1, 0, width)).mul_(gate_up.narrow(-1, width, width));
  std::vector<int64_t> shape = gate_up.sizes().vec();
  shape.back() = width;
  at::Tensor y_NF = at::empty(shape, gate_up.options());
  if (y_NF.numel() == 0) return y_NF;
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, gate_up.scalar_type(), "swiglu", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* in = gate_up.const_data_ptr<scalar_t>();
    scalar_t* out = y_NF.data_ptr<scalar_t>();
    parallel_rows(y_NF.numel() / width, width, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t n = begin; n < end; ++n) {
        const scalar_t* gate = in + n * 2 * width;
        const scalar_t* up = gate + width;
        scalar_t* y = out + n * width;
        for (int64_t i = 0; i < width; ++i) {
          const wide_t g = static_cast<wide_t>(gate[i]);
          y[i] = static_cast<scalar_t>(g * logistic(g) * static_cast<wide_t>(up[i]));
        }
      }
    });
  });
  return y_NF;
}

/// dgate = dy up s (1 + gate (1 - s)) with s = sigmoid(gate), dup = dy gate s.
template <typename scalar_t>
FARSKIP_INLINE inline void backward_row(const scalar_t* gate, const scalar_t* up, const scalar_t* dy, scalar_t* dgate,
                                        scalar_t* dup, int64_t width) {
  using wide_t = at::opmath_type<scalar_t>;
#pragma GCC ivdep
  for (int64_t i = 0; i < width; ++i) {
    const wide_t g = static_cast<wide_t>(gate[i]), s = logistic(g), dy_i = static_cast<wide_t>(dy[i]);
    dgate[i] = static_cast<scalar_t>(dy_i * static_cast<wide_t>(up[i]) * s * (wide_t(1) + g * (wide_t(1) - s)));
    dup[i] = static_cast<scalar_t>(dy_i * g * s);
  }
}

at::Tensor swiglu_backward(const at::Tensor& dy, const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(-1) / 2;
  at::Tensor d_N2F = at::empty(gate_up.sizes(), gate_up.options());
  if (!gate_up.device().is_cpu()) {
    const at::Tensor gate = gate_up.narrow(-1, 0, width);
    at::Tensor dgate = d_N2F.narrow(-1, 0, width), dup = d_N2F.narrow(-1, width, width);
    at::mul_out(dup, dy, gate_up.narrow(-1, width, width));
    at::silu_backward_out(dgate, dup, gate);
    at::mul_out(dup, dy, at::silu(gate));
    return d_N2F;
  }
  if (d_N2F.numel() == 0) return d_N2F;
  const at::Tensor dy_c = dy.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, gate_up.scalar_type(), "swiglu_backward", [&] {
    const scalar_t* in = gate_up.const_data_ptr<scalar_t>();
    const scalar_t* gradient = dy_c.const_data_ptr<scalar_t>();
    scalar_t* out = d_N2F.data_ptr<scalar_t>();
    parallel_rows(dy_c.numel() / width, 2 * width, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t n = begin; n < end; ++n) {
        const scalar_t *gate = in + n * 2 * width, *up = gate + width, *row = gradient + n * width;
        scalar_t *dgate = out + n * 2 * width, *dup = dgate + width;
        backward_row(gate, up, row, dgate, dup, width);
      }
    });
  });
  return d_N2F;
}

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    const at::Tensor in = gate_up.contiguous();
    ctx->save_for_backward({in});
    return swiglu_forward(in);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {swiglu_backward(grads[0], ctx->get_saved_variables()[0])};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) { return apply<SwiGlu>(gate_up); }

}  // namespace farskip::nn
