// Closed-form maps: what it solves, how its error is known, and what it does to weights.

#include "distill/linear_map.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

namespace farskip {
namespace {

at::Tensor noise(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble);
}

constexpr int64_t width = 6;

MapStatistics statistics(const at::Tensor& student, const at::Tensor& teacher, int num_parts = 1) {
  MapStatistics sums(width);
  for (int i = 0; i < num_parts; ++i) {
    const int64_t rows = student.size(0) / num_parts;
    sums.add(student.narrow(0, i * rows, rows), teacher.narrow(0, i * rows, rows));
  }
  return sums;
}

TEST(LinearMap, FindsALinearRelation) {
  const at::Tensor relation = noise({width, width}, 1), student = noise({200, width}, 2);
  const at::Tensor teacher = student.mm(relation.t());
  const MapStatistics sums = statistics(student, teacher);
  const at::Tensor map = fit_map(sums, 1e-9);
  EXPECT_TRUE(at::allclose(map, relation, 1e-5, 1e-6));
  EXPECT_NEAR(sums.relative_error(map), 0, 1e-9);
}

// What enters the stream together is mapped together: neither part alone could give the sum.
TEST(LinearMap, PartsOfASumAreMappedTogether) {
  const at::Tensor first = noise({width, width}, 20), second = noise({width, width}, 21);
  const at::Tensor parts = noise({300, 2 * width}, 22);
  const at::Tensor teacher = parts.narrow(1, 0, width).mm(first.t()) + parts.narrow(1, width, width).mm(second.t());
  MapStatistics sums(width, 2);
  sums.add(parts, teacher);
  EXPECT_TRUE(at::allclose(fit_map(sums, 1e-9), at::cat({first, second}, 1), 1e-5, 1e-6));
  const at::Tensor as_it_is = parts.narrow(1, 0, width) + parts.narrow(1, width, width);
  EXPECT_NEAR(sums.relative_error({}), ((teacher - as_it_is).square().sum() / teacher.square().sum()).item<double>(),
              1e-12);
}

TEST(LinearMap, MuchDampingIsThePrior) {
  MapStatistics sums = statistics(noise({64, width}, 23), noise({64, width}, 24));
  sums.prior = noise({width, width}, 25);
  EXPECT_TRUE(at::allclose(fit_map(sums, 1e9), sums.prior, 1e-6, 1e-6));
}

TEST(LinearMap, ErrorsFollowFromTheSums) {
  const at::Tensor student = noise({64, width}, 3), teacher = student + 0.5 * noise({64, width}, 4);
  const MapStatistics sums = statistics(student, teacher, 4);
  for (const at::Tensor& map : {at::Tensor(), noise({width, width}, 5)}) {
    const at::Tensor mapped = map.defined() ? student.mm(map.t()) : student;
    const double expected = ((teacher - mapped).square().sum() / teacher.square().sum()).item<double>();
    EXPECT_NEAR(sums.relative_error(map), expected, 1e-12);
  }
  EXPECT_EQ(sums.num_tokens, 64);
}

TEST(LinearMap, MuchDampingIsTheIdentity) {
  const MapStatistics sums = statistics(noise({64, width}, 6), noise({64, width}, 7));
  EXPECT_TRUE(at::allclose(fit_map(sums, 1e9), at::eye(width, at::kDouble), 1e-6, 1e-6));
}

TEST(LinearMap, PackedSumsAreTheSums) {
  const at::Tensor student = noise({10, width}, 8), teacher = noise({10, width}, 9);
  const MapStatistics whole = statistics(student, teacher);
  const MapStatistics first = statistics(student.narrow(0, 0, 5), teacher.narrow(0, 0, 5));
  const MapStatistics second = statistics(student.narrow(0, 5, 5), teacher.narrow(0, 5, 5));
  MapStatistics sum(width);
  sum.unpack(first.packed() + second.packed());
  EXPECT_TRUE(at::allclose(sum.student_student, whole.student_student));
  EXPECT_TRUE(at::allclose(sum.teacher_student, whole.teacher_student));
  EXPECT_NEAR(sum.teacher_squares, whole.teacher_squares, 1e-9);
  EXPECT_EQ(sum.num_tokens, 10);
}

// With fewer tokens than dimensions a map fits noise: the more the less damping. Held-out tokens must tell.
TEST(LinearMap, HeldOutTokensChooseTheDamping) {
  const auto pair = [](int64_t rows, uint64_t seed) {
    const at::Tensor student = noise({rows, width}, seed);
    return statistics(student, 0.8 * student + 0.3 * noise({rows, width}, seed + 1));
  };
  const std::vector<double> dampings = {1e-9, 1e-2, 1e-1, 1};
  const ChosenMap few = choose_map(pair(8, 10), pair(2000, 20), dampings);
  const ChosenMap many = choose_map(pair(4000, 30), pair(2000, 20), dampings);
  ASSERT_TRUE(many.map.defined());
  EXPECT_LT(many.error, many.identity_error);
  EXPECT_LT(many.error, few.error);
  EXPECT_GT(few.damping, many.damping);
}

TEST(LinearMap, NothingIsMappedWhereInputsAgree) {
  const at::Tensor student = noise({64, width}, 11);
  const MapStatistics same = statistics(student, student);
  const ChosenMap chosen = choose_map(same, same, {1e-3});
  EXPECT_FALSE(chosen.map.defined());
  EXPECT_EQ(chosen.error, chosen.identity_error);
}

TEST(LinearMap, NothingIsFittedToNothing) {
  const MapStatistics other = statistics(noise({64, width}, 30), noise({64, width}, 31));
  EXPECT_FALSE(choose_map(MapStatistics(width), other, {1e-3}).map.defined());
  const MapStatistics silent = statistics(at::zeros({64, width}, at::kDouble), noise({64, width}, 32));
  EXPECT_FALSE(choose_map(silent, silent, {1e-3}).map.defined());
}

// What only looks like a relation in the fitted tokens is refused.
TEST(LinearMap, AMapThatDoesNotHelpIsRefused) {
  const at::Tensor student = noise({8, width}, 12), other = noise({4000, width}, 14);
  const MapStatistics fitted = statistics(student, noise({8, width}, 13));
  const ChosenMap chosen = choose_map(fitted, statistics(other, other + 1e-3 * noise({4000, width}, 15)), {1e-9});
  EXPECT_FALSE(chosen.map.defined());
}

TEST(LinearMap, MappedWeightsReadTheMappedInput) {
  const at::Tensor map = noise({width, width}, 16), x = noise({5, width}, 17);
  for (const at::Tensor& weight : {noise({4, width}, 18), noise({3, 4, width}, 19)}) {
    nn::Param param{weight.to(at::kFloat).clone()};
    apply_input_map(param, map);
    const at::Tensor expected = at::matmul(weight, map);
    EXPECT_TRUE(at::allclose(param.value.to(at::kDouble), expected, 1e-5, 1e-5));
    EXPECT_TRUE(at::allclose(at::matmul(x, param.value.to(at::kDouble).transpose(-1, -2)),
                             at::matmul(x.mm(map.t()), weight.transpose(-1, -2)), 1e-4, 1e-4));
  }
}

TEST(LinearMap, MappedWeightsWriteTheMappedOutput) {
  const at::Tensor map = noise({width, width}, 26);
  for (const at::Tensor& weight : {noise({width, 4}, 27), noise({3, width, 4}, 28), noise({width}, 29)}) {
    nn::Param param{weight.to(at::kFloat).clone()};
    apply_output_map(param, map);
    EXPECT_TRUE(at::allclose(param.value.to(at::kDouble), at::matmul(map, weight), 1e-5, 1e-5));
  }
}

}  // namespace
}  // namespace farskip
