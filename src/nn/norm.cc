#include "nn/norm.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/deferred.h"
#include "nn/for_machine.h"

// Legend: N rows, D columns; "wide" is fp32 for bf16 inputs. On a CPU each pass is one loop over rows; elsewhere the
// same formulas are written with library operations.

namespace farskip::nn {
namespace {

/// Rows of x as a matrix whose last dimension is contiguous; a view where strides allow.
at::Tensor as_rows(const at::Tensor& x) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  return rows.stride(1) == 1 ? rows : rows.contiguous();
}

struct Normalized {
  at::Tensor y_ND, rstd_N;
};

Normalized normalize(const at::Tensor& x_ND, const at::Tensor& weight_D, double eps) {
  const int64_t num_rows = x_ND.size(0), num_columns = x_ND.size(1);
  if (!x_ND.device().is_cpu()) {
    const at::Tensor wide = x_ND.to(wide_type(x_ND));
    const at::Tensor rstd_N = at::rsqrt(wide.square().mean(-1) + eps);
    return {(wide * rstd_N.unsqueeze(-1)).to(x_ND.scalar_type()) * weight_D, rstd_N};
  }
  const at::Tensor y_ND = at::empty({num_rows, num_columns}, x_ND.options());
  const at::Tensor rstd_N = at::empty({num_rows}, x_ND.options().dtype(wide_type(x_ND)));
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x_ND.scalar_type(), "rms_norm", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* x = x_ND.const_data_ptr<scalar_t>();
    const scalar_t* w = weight_D.const_data_ptr<scalar_t>();
    scalar_t* y = y_ND.data_ptr<scalar_t>();
    wide_t* rstd = rstd_N.data_ptr<wide_t>();
    const int64_t stride = x_ND.stride(0);
    parallel_rows(num_rows, num_columns, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t n = begin; n < end; ++n) {
        const scalar_t* row = x + n * stride;
        scalar_t* out = y + n * num_columns;
        const wide_t squares = lane_sum<wide_t>(num_columns, [&](int64_t i) FARSKIP_INLINE {
          const wide_t value = row[i];
          return value * value;
        });
        const wide_t scale = wide_t(1) / std::sqrt(squares / num_columns + static_cast<wide_t>(eps));
        rstd[n] = scale;
        for (int64_t i = 0; i < num_columns; ++i) {
          out[i] = static_cast<wide_t>(static_cast<scalar_t>(static_cast<wide_t>(row[i]) * scale)) *
                   static_cast<wide_t>(w[i]);
        }
      }
    });
  });
  return {y_ND, rstd_N};
}

/// dx = rstd * (g - xhat * mean(g * xhat)) with g = dy * weight, xhat = x * rstd.
at::Tensor normalize_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND, const at::Tensor& weight_D,
                              const at::Tensor& rstd_N) {
  const int64_t num_rows = x_ND.size(0), num_columns = x_ND.size(1);
  if (!x_ND.device().is_cpu()) {
    const auto wide = wide_type(x_ND);
    const at::Tensor g = dy_ND.to(wide) * weight_D.to(wide);
    const at::Tensor xhat = x_ND.to(wide) * rstd_N.unsqueeze(-1);
    return ((g - xhat * (g * xhat).mean(-1, true)) * rstd_N.unsqueeze(-1)).to(x_ND.scalar_type());
  }
  const at::Tensor dx_ND = at::empty({num_rows, num_columns}, x_ND.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x_ND.scalar_type(), "rms_norm_backward", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* dy = dy_ND.const_data_ptr<scalar_t>();
    const scalar_t* x = x_ND.const_data_ptr<scalar_t>();
    const scalar_t* w = weight_D.const_data_ptr<scalar_t>();
    const wide_t* rstd = rstd_N.const_data_ptr<wide_t>();
    scalar_t* dx = dx_ND.data_ptr<scalar_t>();
    const int64_t dy_stride = dy_ND.stride(0), x_stride = x_ND.stride(0);
    parallel_rows(num_rows, num_columns, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t n = begin; n < end; ++n) {
        const scalar_t* dy_row = dy + n * dy_stride;
        const scalar_t* x_row = x + n * x_stride;
        scalar_t* out = dx + n * num_columns;
        auto g = [&](int64_t i) FARSKIP_INLINE { return static_cast<wide_t>(dy_row[i]) * static_cast<wide_t>(w[i]); };
        const wide_t scale = rstd[n];
        const wide_t dot = lane_sum<wide_t>(
            num_columns, [&](int64_t i) FARSKIP_INLINE { return g(i) * static_cast<wide_t>(x_row[i]); });
        const wide_t back = dot * scale * scale / num_columns;
        for (int64_t i = 0; i < num_columns; ++i) out[i] = scale * (g(i) - static_cast<wide_t>(x_row[i]) * back);
      }
    });
  });
  return dx_ND;
}

/// dweight = sum over rows of dy * (xhat rounded to the dtype of x). On a CPU columns are divided among threads and
/// rows are added in order, in blocks, so the bits do not depend on the number of threads.
at::Tensor norm_weight_grad(const at::Tensor& dy_ND, const at::Tensor& x_ND, const at::Tensor& rstd_N) {
  const int64_t num_rows = x_ND.size(0), num_columns = x_ND.size(1);
  if (!x_ND.device().is_cpu()) {
    const auto wide = wide_type(x_ND);
    const at::Tensor xhat = (x_ND.to(wide) * rstd_N.unsqueeze(-1)).to(x_ND.scalar_type()).to(wide);
    return (dy_ND.to(wide) * xhat).sum(0).to(x_ND.scalar_type());
  }
  constexpr int64_t block_rows = 64;
  const at::Tensor sum_D = at::zeros({num_columns}, x_ND.options().dtype(wide_type(x_ND)));
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x_ND.scalar_type(), "rms_norm_weight_grad", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* dy = dy_ND.const_data_ptr<scalar_t>();
    const scalar_t* x = x_ND.const_data_ptr<scalar_t>();
    const wide_t* rstd = rstd_N.const_data_ptr<wide_t>();
    wide_t* sum = sum_D.data_ptr<wide_t>();
    const int64_t dy_stride = dy_ND.stride(0), x_stride = x_ND.stride(0);
    parallel_rows(num_columns, num_rows, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
      std::vector<wide_t> partial(end - begin);
      for (int64_t first = 0; first < num_rows; first += block_rows) {
        std::fill(partial.begin(), partial.end(), wide_t(0));
        for (int64_t n = first; n < std::min(first + block_rows, num_rows); ++n) {
          const scalar_t* dy_row = dy + n * dy_stride;
          const scalar_t* x_row = x + n * x_stride;
          for (int64_t i = begin; i < end; ++i) {
            const scalar_t xhat = static_cast<scalar_t>(static_cast<wide_t>(x_row[i]) * rstd[n]);
            partial[i - begin] += static_cast<wide_t>(dy_row[i]) * static_cast<wide_t>(xhat);
          }
        }
        for (int64_t i = begin; i < end; ++i) sum[i] += partial[i - begin];
      }
    });
  });
  return sum_D.to(x_ND.scalar_type());
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight, double eps,
                            WeightGradQueue* queue, int id) {
    const Normalized result = normalize(as_rows(x), weight.contiguous(), eps);
    ctx->save_for_backward({x, weight, result.rstd_N});
    save_target(ctx, "weight", queue, id);
    return result.y_ND.view(x.sizes());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor x_ND = as_rows(saved[0].detach());
    const at::Tensor dy_ND = as_rows(grads[0]);
    const at::Tensor rstd_N = saved[2];
    at::Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = normalize_backward(dy_ND, x_ND, saved[1].contiguous(), rstd_N).view(saved[0].sizes());
    }
    return {dx, weight_grad(ctx, "weight", 1, [=] { return norm_weight_grad(dy_ND, x_ND, rstd_N); }), {}, {}, {}};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const Param& weight, double eps, WeightGradQueue* queue) {
  if (!weight.value.requires_grad()) check_reaches_backward(x, queue);
  return apply<RmsNorm>(x, weight.value, eps, queue, weight.id);
}

at::Tensor rms_norm(const at::Tensor& x, double eps) {
  return rms_norm(x, Param{at::ones({x.size(-1)}, x.options().requires_grad(false))}, eps, nullptr);  // times 1: exact
}

Input normed(const at::Tensor& x, const Param& weight, double eps, WeightGradQueue* queue, bool recompute) {
  if (!recompute) return rms_norm(x, weight, eps, queue);
  return {rms_norm(x, weight, eps, queue), [x = x.detach(), weight, eps] { return rms_norm(x, weight, eps, nullptr); }};
}

}  // namespace farskip::nn
