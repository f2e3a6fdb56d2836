#include "nn/accumulate.h"

#include "check_function.h"

namespace farskip::nn {
namespace {

TEST(Accumulate, SameBitsAsTheLibrary) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const auto& shape : {std::vector<int64_t>{70001}, std::vector<int64_t>{3, 5, 7}, std::vector<int64_t>{0, 4}}) {
      const at::Tensor sum = random(shape, 1).to(at::kFloat), gradient = random(shape, 2).to(type);
      const at::Tensor expected = sum + gradient.to(at::kFloat);
      accumulate_(sum, gradient);
      EXPECT_BITS_EQUAL(sum, expected);
    }
  }
}

TEST(Accumulate, StridedGradient) {
  const at::Tensor sum = at::ones({6, 4}), gradient = random({4, 6}, 2).to(at::kBFloat16).t();
  const at::Tensor expected = gradient.to(at::kFloat) + 1;
  accumulate_(sum, gradient);
  EXPECT_BITS_EQUAL(sum, expected);
}

TEST(Accumulate, AnotherShapeIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(accumulate_(at::zeros({2}), at::zeros({3})), "shape");
}

}  // namespace
}  // namespace farskip::nn
