// The sigmoid against the library's, and its bits against themselves.

#include "nn/sigmoid.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace farskip::nn {
namespace {

TEST(Sigmoid, IsTheLibrarysWithItsGradient) {
  const at::Tensor x = at::cat({at::linspace(-80, 80, 4001), at::tensor({0.0f, 1e-30f})});
  for (const auto& [dtype, limit] : {std::pair{at::kDouble, 1e-15}, {at::kFloat, 3e-7}, {at::kBFloat16, 4e-3}}) {
    const at::Tensor ours = x.to(dtype).clone().requires_grad_();
    const at::Tensor theirs = ours.detach().to(at::kDouble, false, /*copy=*/true).requires_grad_();
    const at::Tensor y = nn::sigmoid(ours), expected = at::sigmoid(theirs);
    y.sum().backward();
    expected.sum().backward();
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_LE((y.to(at::kDouble) - expected).abs().max().item<double>(), limit);
    EXPECT_LE((ours.grad().to(at::kDouble) - theirs.grad()).abs().max().item<double>(), 2 * limit);
  }
  EXPECT_TRUE(nn::sigmoid(at::full({1}, NAN)).isnan().item<bool>());
}

TEST(Sigmoid, BitsDoNotDependOnThePlace) {
  const at::Tensor x = at::randn({4097});
  const at::Tensor all = nn::sigmoid(x);
  for (int64_t i = 4080; i < 4097; ++i) EXPECT_TRUE(at::equal(nn::sigmoid(x.narrow(0, i, 1)), all.narrow(0, i, 1)));
  EXPECT_TRUE(at::equal(nn::sigmoid(x.narrow(0, 3, 4090)), all.narrow(0, 3, 4090)));
}

}  // namespace
}  // namespace farskip::nn
