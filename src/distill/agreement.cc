#include "distill/agreement.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace farskip {

void add_tokens(Agreement& sum, const at::Tensor& teacher_logits, const at::Tensor& student_logits) {
  constexpr int64_t rows_at_once = 256;  // of fp32 copies
  const at::Tensor teacher = teacher_logits.flatten(0, 1), student = student_logits.flatten(0, 1);
  for (int64_t begin = 0; begin < teacher.size(0); begin += rows_at_once) {
    const int64_t num = std::min(rows_at_once, teacher.size(0) - begin);
    const at::Tensor p = at::log_softmax(teacher.narrow(0, begin, num).to(at::kFloat), -1);
    const at::Tensor q = at::log_softmax(student.narrow(0, begin, num).to(at::kFloat), -1);
    sum.kl += (p.exp() * (p - q)).sum(at::kDouble).item<double>();
    sum.top1 += p.argmax(-1).eq(q.argmax(-1)).sum().item<double>();
    sum.num_tokens += static_cast<double>(num);
  }
}

Agreement mean_over_tokens(const Agreement& sum, Transport& world) {
  at::Tensor sums = at::tensor(std::vector<double>{sum.kl, sum.top1, sum.num_tokens}, at::kDouble);
  if (world.size() > 1) sums = world.all_reduce(sums, "agreement").await();
  const double num = sums[2].item<double>();
  return {sums[0].item<double>() / num, sums[1].item<double>() / num, num};
}

}  // namespace farskip
