#include "nn/rotary.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"
#include "check_function.h"

namespace farskip::nn {
namespace {

RotaryConfig plain(bool interleaved) {
  RotaryConfig config;
  config.interleaved = interleaved;
  return config;
}

RotaryConfig deepseek_yarn(double mscale, double mscale_all_dim) {
  RotaryConfig config;
  config.yarn = Yarn{.factor = 40, .mscale = mscale, .mscale_all_dim = mscale_all_dim};
  return config;
}

/// One vector, rotated by hand: channels (a, b) of pair i become (a cos - b sin, b cos + a sin).
at::Tensor rotate_by_hand(const at::Tensor& x, int64_t position, bool interleaved) {
  const int64_t dim = x.size(0);
  const at::Tensor y = at::empty_like(x);
  for (int64_t i = 0; i < dim / 2; ++i) {
    const int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + dim / 2;
    const double angle = position * std::pow(10000.0, -2.0 * i / dim);
    const double a = x[first].item<double>(), b = x[second].item<double>();
    y[first] = a * std::cos(angle) - b * std::sin(angle);
    y[second] = b * std::cos(angle) + a * std::sin(angle);
  }
  return y;
}

TEST(Rotary, BothLayoutsMatchTheFormula) {
  for (const bool interleaved : {false, true}) {
    const RotaryTable table = make_rotary(plain(interleaved), 8, 5);
    const at::Tensor x = random({2, 5, 3, 8}, 1);
    const at::Tensor y = rotate_heads({}, x, table);
    ASSERT_EQ(y.sizes(), at::IntArrayRef({2, 3, 5, 8}));
    for (int64_t s = 0; s < 5; ++s) {
      EXPECT_LE(relative_difference(y[1][2][s], rotate_by_hand(x[1][s][2], s, interleaved)), 1e-6);
    }
  }
}

TEST(Rotary, InterleavedScoresEqualTheSortedForm) {
  const at::Tensor q = random({1, 6, 2, 8}, 1), k = random({1, 6, 2, 8}, 2);
  auto sorted = [](const at::Tensor& x) { return at::cat({x.slice(-1, 0, 8, 2), x.slice(-1, 1, 8, 2)}, -1); };
  auto scores = [](const at::Tensor& q, const at::Tensor& k, const RotaryTable& table) {
    return at::matmul(rotate_heads({}, q, table), rotate_heads({}, k, table).transpose(2, 3));
  };
  const at::Tensor ours = scores(q, k, make_rotary(plain(true), 8, 6));
  EXPECT_LE(relative_difference(ours, scores(sorted(q), sorted(k), make_rotary(plain(false), 8, 6))), 1e-12);
  EXPECT_GE(relative_difference(ours, scores(q, k, make_rotary(plain(false), 8, 6))), 1e-2);
}

TEST(Rotary, ScoresDependOnDistanceOnly) {
  const RotaryTable table = make_rotary(plain(true), 8, 40);
  const at::Tensor q = random({1, 1, 1, 8}, 1), k = random({1, 1, 1, 8}, 2);
  auto score = [&](int64_t i, int64_t j) {
    const at::Tensor rotated_q = rotate_heads({}, q, table.positions(i, 1));
    return (rotated_q * rotate_heads({}, k, table.positions(j, 1))).sum().item<double>();
  };
  EXPECT_NEAR(score(7, 3), score(36, 32), 1e-6);
  EXPECT_GT(std::abs(score(7, 3) - score(7, 4)), 1e-3);
}

TEST(Rotary, HeadsWithPlainPart) {
  for (const bool interleaved : {false, true}) {
    const RotaryTable table = make_rotary(plain(interleaved), 8, 6);
    auto reference = [&](const at::Tensor& plain, const at::Tensor& rope) {
      const at::Tensor cos = table.cos.to(at::kDouble).unsqueeze(1), sin = table.sin.to(at::kDouble).unsqueeze(1);
      const auto parts = interleaved ? std::vector{rope.slice(-1, 0, 8, 2), rope.slice(-1, 1, 8, 2)}
                                     : std::vector{rope.slice(-1, 0, 4), rope.slice(-1, 4, 8)};
      const at::Tensor a = parts[0] * cos - parts[1] * sin, b = parts[1] * cos + parts[0] * sin;
      at::Tensor rotated = interleaved ? at::stack({a, b}, -1).flatten(-2) : at::cat({a, b}, -1);
      rotated = rotated.expand({-1, -1, plain.size(2), -1});
      return at::cat({plain, rotated}, -1).transpose(1, 2);
    };
    for (const int64_t groups : {1, 4}) {  // 1: MLA's shared key, whose gradient is a sum over heads
      check_function(
          {{random({2, 6, 4, 5}, 1), random({2, 6, groups, 8}, 2)}, {}},
          [&](auto& x, auto&, auto*) { return std::vector{rotate_heads(x[0], x[1], table)}; },
          [&](auto& x, auto&) { return std::vector{reference(x[0], x[1])}; });
    }
  }
}

TEST(Rotary, RefusesMorePositionsThanTheTableHolds) {
  const RotaryTable table = make_rotary(plain(false), 4, 8);
  EXPECT_EQ(table.positions(4, 4).cos.size(0), 4);
  try {
    table.positions(4, 5);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("4 to 8"), testing::HasSubstr("holds 8")));
  }
  EXPECT_THROW(make_rotary(plain(false), 5, 8), Error);
}

TEST(Yarn, FrequenciesOfDeepSeekV2Lite) {
  // 64 channels, theta 10000, factor 40, original length 4096: pairs up to 10 are kept, from 23 on slowed 40 times.
  const auto frequencies = rotary_frequencies(deepseek_yarn(0.707, 0.707), 64);
  const std::vector<std::pair<int, double>> expected = {
      {0, 1.0},     {9, 0.07498942093324558},    {10, 0.056234132519034905}, {11, 0.03900692656714386},
      {16, 0.0055}, {22, 0.0001778279410038922}, {23, 3.33380358040831e-05}, {31, 3.3338035804083097e-06}};
  for (const auto& [pair, value] : expected) EXPECT_NEAR(frequencies[pair] / value, 1.0, 1e-12) << pair;
}

TEST(Yarn, ScalesCosAndSin) {
  EXPECT_EQ(make_rotary(deepseek_yarn(0.707, 0.707), 64, 2).cos[0][0].item<double>(), 1.0);
  const double expected = (0.1 * std::log(40.0) + 1) / (0.1 * 0.5 * std::log(40.0) + 1);
  EXPECT_NEAR(make_rotary(deepseek_yarn(1.0, 0.5), 64, 2).cos[0][0].item<double>(), expected, 1e-6);
}

TEST(Yarn, SoftmaxScaleOfInstella) {
  AttentionConfig config;
  config.kind = AttentionKind::mla;
  config.qk_nope_head_dim = 96;
  config.qk_rope_head_dim = 32;
  EXPECT_NEAR(config.softmax_scale(), 0.0884, 1e-4);
  config.rotary = deepseek_yarn(1.0, 1.0);
  EXPECT_NEAR(config.softmax_scale(), 0.1656, 1e-4);
}

}  // namespace
}  // namespace farskip::nn
