#include "nn/accumulate.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "nn/for_machine.h"

namespace farskip::nn {

void accumulate_(const at::Tensor& sum, const at::Tensor& gradient) {
  FARSKIP_CHECK(sum.sizes() == gradient.sizes(), "a gradient of another shape than its sum");
  const bool widens = sum.scalar_type() == at::kFloat && gradient.scalar_type() == at::kBFloat16;
  if (!widens || !sum.device().is_cpu() || !sum.is_contiguous()) {
    sum.add_(gradient);
    return;
  }
  const at::Tensor terms = gradient.contiguous();
  const at::BFloat16* term = terms.const_data_ptr<at::BFloat16>();
  float* total = sum.data_ptr<float>();
  parallel_rows(sum.numel(), 1, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t i = begin; i < end; ++i) total[i] += static_cast<float>(term[i]);
  });
}

}  // namespace farskip::nn
