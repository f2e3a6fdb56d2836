#include "distill/linear_map.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace farskip {
namespace {

double diagonal_sum(const at::Tensor& matrix) { return matrix.diagonal().sum().item<double>(); }

}  // namespace

MapStatistics::MapStatistics(int64_t hidden_size, int64_t num_parts)
    : student_student(at::zeros({num_parts * hidden_size, num_parts * hidden_size}, at::kDouble)),
      teacher_student(at::zeros({hidden_size, num_parts * hidden_size}, at::kDouble)),
      prior(at::eye(hidden_size, at::kDouble).repeat({1, num_parts})) {}

void MapStatistics::add(const at::Tensor& student, const at::Tensor& teacher) {
  FARSKIP_CHECK(student.size(-1) == teacher_student.size(1) && teacher.size(-1) == teacher_student.size(0));
  const at::Tensor s_TN = student.reshape({-1, student.size(-1)}).to(at::kDouble);
  const at::Tensor f_TD = teacher.reshape({-1, teacher.size(-1)}).to(at::kDouble);
  student_student.addmm_(s_TN.t(), s_TN);
  teacher_student.addmm_(f_TD.t(), s_TN);
  teacher_squares += f_TD.square().sum().item<double>();
  num_tokens += static_cast<double>(s_TN.size(0));
}

at::Tensor MapStatistics::packed() const {
  return at::cat({student_student.flatten(), teacher_student.flatten(),
                  at::tensor(std::vector<double>{teacher_squares, num_tokens}, at::kDouble)});
}

void MapStatistics::unpack(const at::Tensor& sums) {
  int64_t begin = 0;
  for (at::Tensor* matrix : {&student_student, &teacher_student}) {
    *matrix = sums.narrow(0, begin, matrix->numel()).view_as(*matrix).clone();
    begin += matrix->numel();
  }
  teacher_squares = sums[begin].item<double>();
  num_tokens = sums[begin + 1].item<double>();
}

double MapStatistics::relative_error(const at::Tensor& map) const {
  const at::Tensor& m = map.defined() ? map : prior;
  const double cross = (m * teacher_student).sum().item<double>();
  const double squares = (m.mm(student_student) * m).sum().item<double>();
  return teacher_squares > 0 ? (teacher_squares - 2 * cross + squares) / teacher_squares : 0;
}

at::Tensor fit_map(const MapStatistics& statistics, double damping) {
  const int64_t num_inputs = statistics.student_student.size(0);
  const double added = damping * diagonal_sum(statistics.student_student) / static_cast<double>(num_inputs);
  // M (C + l I) = B + l P, and C is symmetric: (C + l I) M^T = (B + l P)^T.
  const at::Tensor factor = at::linalg_cholesky(statistics.student_student + added * at::eye(num_inputs, at::kDouble));
  const at::Tensor right = statistics.teacher_student + added * statistics.prior;
  return at::cholesky_solve(right.t(), factor).t().contiguous();
}

ChosenMap choose_map(const MapStatistics& fitted, const MapStatistics& held_out, const std::vector<double>& dampings) {
  ChosenMap best;
  best.identity_error = best.error = held_out.relative_error({});
  // Nothing to fit: an expert without tokens, or one that gives nothing but zeros.
  if (diagonal_sum(fitted.student_student) == 0) return best;
  if (best.agrees()) return best;
  for (const double damping : dampings) {
    const at::Tensor map = fit_map(fitted, damping);
    const double error = held_out.relative_error(map);
    if (error >= best.error) continue;
    best.map = map;
    best.damping = damping;
    best.error = error;
  }
  return best;
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

void apply_output_map(const nn::Param& weight, const at::Tensor& map) {
  const at::Tensor& value = weight.value;
  const auto matrices = value.dim() == 3 ? value.unbind(0) : std::vector<at::Tensor>{value};
  for (const at::Tensor& matrix : matrices) matrix.copy_(at::matmul(map, matrix.to(at::kDouble)));
}

}  // namespace farskip
