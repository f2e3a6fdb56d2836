#include "nn/adamw.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "nn/for_machine.h"

namespace farskip::nn {

void adamw_(const at::Tensor& main, const at::Tensor& gradient, const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
            const AdamWStep& o) {
  const int64_t n = main.numel();
  for (const at::Tensor& t : {main, gradient, exp_avg, exp_avg_sq})
    FARSKIP_CHECK(t.numel() == n && t.is_contiguous() && t.scalar_type() == at::kFloat, "AdamW takes fp32 runs");
  if (!main.is_cpu()) {
    const at::Tensor divided = o.gradient_divisor == 1 ? gradient : gradient / o.gradient_divisor;
    const at::Tensor step = at::full({}, static_cast<double>(o.step), main.options());
    at::_fused_adamw_({main}, {divided}, {exp_avg}, {exp_avg_sq}, {}, {step}, o.lr, o.beta1, o.beta2, o.weight_decay,
                      o.eps, /*amsgrad=*/false, /*maximize=*/false);
    return;
  }
  const auto steps = static_cast<double>(o.step);
  const float decay = static_cast<float>(1 - o.lr * o.weight_decay), divisor = static_cast<float>(o.gradient_divisor);
  const float step_size = static_cast<float>(o.lr / (1 - std::pow(o.beta1, steps)));
  const float root_correction = static_cast<float>(std::sqrt(1 - std::pow(o.beta2, steps)));
  const float rate1 = static_cast<float>(1 - o.beta1), rate2 = static_cast<float>(1 - o.beta2);
  const float beta2 = static_cast<float>(o.beta2), eps = static_cast<float>(o.eps);
  float* __restrict p = main.data_ptr<float>();
  const float* __restrict grad = gradient.const_data_ptr<float>();
  float* __restrict first = exp_avg.data_ptr<float>();
  float* __restrict second = exp_avg_sq.data_ptr<float>();
  parallel_rows(n, 1, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t i = begin; i < end; ++i) {
      const float g = grad[i] / divisor;
      const float m = first[i] + rate1 * (g - first[i]);
      const float v = beta2 * second[i] + rate2 * (g * g);
      first[i] = m;
      second[i] = v;
      p[i] = p[i] * decay - step_size * m / (std::sqrt(v) / root_correction + eps);
    }
  });
}

double squared_norm(const at::Tensor& x) {
  FARSKIP_CHECK(x.is_contiguous() && x.scalar_type() == at::kFloat, "the norm of an fp32 run");
  if (!x.is_cpu()) {
    const double norm = at::linalg_vector_norm(x, 2, {}, false, at::kDouble).item<double>();
    return norm * norm;
  }
  constexpr int64_t part = 1 << 15;
  const int64_t n = x.numel();
  std::vector<double> sums((n + part - 1) / part);
  const float* value = x.const_data_ptr<float>();
  parallel_rows(static_cast<int64_t>(sums.size()), part, [=, &sums](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t i = begin; i < end; ++i) {
      const float* first = value + i * part;
      sums[i] = lane_sum<double>(std::min(part, n - i * part), [=](int64_t j) {
        return static_cast<double>(first[j]) * static_cast<double>(first[j]);
      });
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace farskip::nn
