#include "distill/input_map.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace farskip {
namespace {

at::Tensor eye(int64_t size) { return at::eye(size, at::kDouble); }

double diagonal_sum(const at::Tensor& matrix) { return matrix.diagonal().sum().item<double>(); }

}  // namespace

InputStatistics::InputStatistics(int64_t hidden_size)
    : student_student(at::zeros({hidden_size, hidden_size}, at::kDouble)),
      teacher_student(at::zeros({hidden_size, hidden_size}, at::kDouble)) {}

void InputStatistics::add(const at::Tensor& student, const at::Tensor& teacher) {
  FARSKIP_CHECK(student.sizes() == teacher.sizes() && student.size(-1) == student_student.size(0));
  const at::Tensor s_TD = student.reshape({-1, student.size(-1)}).to(at::kDouble);
  const at::Tensor f_TD = teacher.reshape({-1, teacher.size(-1)}).to(at::kDouble);
  student_student.addmm_(s_TD.t(), s_TD);
  teacher_student.addmm_(f_TD.t(), s_TD);
  teacher_squares += f_TD.square().sum().item<double>();
  num_tokens += static_cast<double>(s_TD.size(0));
}

at::Tensor InputStatistics::packed() const {
  return at::cat({student_student.flatten(), teacher_student.flatten(),
                  at::tensor(std::vector<double>{teacher_squares, num_tokens}, at::kDouble)});
}

void InputStatistics::unpack(const at::Tensor& sums) {
  const int64_t numel = student_student.numel();
  student_student = sums.narrow(0, 0, numel).view_as(student_student).clone();
  teacher_student = sums.narrow(0, numel, numel).view_as(teacher_student).clone();
  teacher_squares = sums[2 * numel].item<double>();
  num_tokens = sums[2 * numel + 1].item<double>();
}

double InputStatistics::relative_error(const at::Tensor& map) const {
  const double cross = map.defined() ? (map * teacher_student).sum().item<double>() : diagonal_sum(teacher_student);
  const double squares =
      map.defined() ? (map.mm(student_student) * map).sum().item<double>() : diagonal_sum(student_student);
  return teacher_squares > 0 ? (teacher_squares - 2 * cross + squares) / teacher_squares : 0;
}

at::Tensor fit_input_map(const InputStatistics& statistics, double damping) {
  const int64_t size = statistics.student_student.size(0);
  const at::Tensor added = eye(size) * (damping * diagonal_sum(statistics.student_student) / static_cast<double>(size));
  // M (C + l I) = B + l I, and C is symmetric: (C + l I) M^T = (B + l I)^T.
  const at::Tensor factor = at::linalg_cholesky(statistics.student_student + added);
  return at::cholesky_solve((statistics.teacher_student + added).t(), factor).t().contiguous();
}

ChosenMap choose_input_map(const InputStatistics& fitted, const InputStatistics& held_out,
                           const std::vector<double>& dampings) {
  ChosenMap best;
  best.identity_error = best.error = held_out.relative_error({});
  // Students that get what their teachers get have nothing to map.
  if (best.identity_error < 1e-9) return best;
  for (const double damping : dampings) {
    const at::Tensor map = fit_input_map(fitted, damping);
    const double error = held_out.relative_error(map);
    if (error >= best.error) continue;
    best.map = map;
    best.damping = damping;
    best.error = error;
  }
  return best;
}

namespace {

std::vector<nn::Param*> present(std::vector<nn::Param*> params) {
  std::erase_if(params, [](const nn::Param* param) { return !param->value.defined(); });
  return params;
}

}  // namespace

std::vector<nn::Param*> attention_readers(nn::LayerWeights& layer) {
  auto& a = layer.attention;
  return present({&a.q_proj, &a.q_a_proj, &a.kv_a_proj_with_mqa, &a.k_proj, &a.v_proj, &a.gate_proj});
}

std::vector<nn::Param*> feed_forward_readers(nn::LayerWeights& layer) {
  return present({&layer.moe.router, &layer.moe.gate_up, &layer.moe.shared.gate_up, &layer.dense.gate_up});
}

void apply_input_map(const nn::Param& weight, const at::Tensor& map) {
  const at::Tensor& value = weight.value;
  const int64_t width = value.size(-1);
  // An expert at a time: an fp64 copy of them all would be large.
  const auto matrices = value.dim() == 3 ? value.unbind(0) : std::vector<at::Tensor>{value};
  for (const at::Tensor& matrix : matrices) {
    matrix.copy_(matrix.reshape({-1, width}).to(at::kDouble).mm(map).view_as(matrix));
  }
}

}  // namespace farskip
