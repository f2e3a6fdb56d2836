#include "nn/loss.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "check_function.h"

namespace farskip::nn {
namespace {

TEST(CrossEntropy, MatchesFormula) {
  const at::Tensor targets = at::tensor({4, 0, 9, 9, 2}, at::kLong);
  check_function(
      {{random({5, 10}, 1, 2.0)}, {}},
      [&](auto& x, auto&, auto*) { return std::vector{cross_entropy(x[0], targets, 8.0)}; },
      [&](auto& x, auto&) { return std::vector{-x[0].softmax(-1).log().gather(1, targets.unsqueeze(1)).sum() / 8.0}; });
}

TEST(CrossEntropy, IgnoredTargetsCountForNothing) {
  const at::Tensor logits = random({3, 6}, 1).to(at::kFloat).requires_grad_();
  const at::Tensor loss = cross_entropy(logits, at::tensor({int64_t{1}, ignored_target, int64_t{5}}), 2.0);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  const at::Tensor wide = logits.detach().to(at::kDouble).log_softmax(-1);
  EXPECT_NEAR(loss.item<double>(), -(wide[0][1] + wide[2][5]).item<double>() / 2, 1e-6);
  loss.backward();
  EXPECT_EQ(logits.grad()[1].abs().sum().item<double>(), 0.0);
  EXPECT_NE(logits.grad()[0].abs().sum().item<double>(), 0.0);
}

TEST(CrossEntropy, LargeLogitsStayFinite) {
  const at::Tensor logits = at::tensor({1e4, -1e4}).view({1, 2});
  EXPECT_NEAR(cross_entropy(logits, at::tensor({1}, at::kLong), 1.0).item<double>(), 2e4, 1.0);
}

TEST(CrossEntropy, SumIsFp32ForBf16Logits) {
  const at::Tensor logits = random({200, 50}, 1).to(at::kBFloat16);
  const at::Tensor targets = at::arange(200, at::kLong) % 50;
  const at::Tensor loss = cross_entropy(logits, targets, 200.0);
  const at::Tensor expected = -logits.to(at::kDouble).log_softmax(-1).gather(1, targets.unsqueeze(1)).mean();
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_LE(relative_difference(loss, expected), 1e-6);
}

TEST(CrossEntropy, RefusesForeignTargets) {
  try {
    cross_entropy(at::zeros({2, 10}), at::tensor({3, 10}, at::kLong), 1.0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("target id 10"), testing::HasSubstr("10 tokens")));
  }
  EXPECT_THROW(cross_entropy(at::zeros({1, 4}), at::zeros({1}, at::kLong), 0.0), Error);
}

}  // namespace
}  // namespace farskip::nn
