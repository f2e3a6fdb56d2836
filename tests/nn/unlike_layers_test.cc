// Attention whose layers differ (Llama-4): chunks, layers without rotation, their temperature, norms without a weight.

#include <gmock/gmock.h>

#include <cmath>

#include "check_function.h"
#include "nn/attention.h"
#include "nn/norm.h"

namespace farskip::nn {
namespace {

TEST(Chunks, AreDocumentsToTheBit) {
  const at::Tensor q = random({2, 4, 23, 8}, 1), k = random({2, 2, 23, 8}, 2), v = random({2, 2, 23, 8}, 3);
  const Documents cut = {{8, 8, 7}, {8, 8, 7}};
  EXPECT_BITS_EQUAL(attn_core(q, k, v, 0.3, {}, 8), attn_core(q, k, v, 0.3, cut));
  EXPECT_BITS_EQUAL(attn_core(q, k, v, 0.3, {}, 23), attn_core(q, k, v, 0.3));
  EXPECT_GT(relative_difference(attn_core(q, k, v, 0.3, {}, 8), attn_core(q, k, v, 0.3)), 0.1);
  // Of packed documents each has chunks of its own.
  EXPECT_BITS_EQUAL(attn_core(q, k, v, 0.3, Documents{{10, 13}, {23}}, 8),
                    attn_core(q, k, v, 0.3, Documents{{8, 2, 8, 5}, {8, 8, 7}}));
}

TEST(Chunks, AreBlocksOfACausalMask) {
  const int64_t num_positions = 21, chunk = 5;
  const at::Tensor position = at::arange(num_positions);
  const at::Tensor block = position.floor_divide(chunk);
  const at::Tensor hidden =
      position.unsqueeze(0).gt(position.unsqueeze(1)).logical_or(block.unsqueeze(0).ne(block.unsqueeze(1)));
  check_function(
      {{random({2, 2, num_positions, 6}, 1), random({2, 2, num_positions, 6}, 2), random({2, 2, num_positions, 6}, 3)},
       {}},
      [&](auto& x, auto&, auto*) { return std::vector{attn_core(x[0], x[1], x[2], 0.4, {}, chunk)}; },
      [&](auto& x, auto&) {
        const at::Tensor scores = at::matmul(x[0], x[1].transpose(2, 3)) * 0.4;
        const at::Tensor o = at::matmul(scores.masked_fill(hidden, -1e30).softmax(-1), x[2]);
        return std::vector{o.transpose(1, 2).flatten(2)};
      },
      with_products());
}

constexpr int64_t num_positions = 9, width = 12, num_heads = 4, groups = 2, dim = 6;
constexpr double eps = 1e-3;

AttentionConfig config_with_norm() {
  AttentionConfig config;
  config.num_heads = num_heads;
  config.num_kv_heads = groups;
  config.qk_rope_head_dim = config.v_head_dim = dim;
  config.qk_l2_norm = true;
  config.rotary.interleaved = true;
  config.rotary.temperature = QueryTemperature{.floor = 4, .scale = 0.5};
  return config;
}

/// q and k of one attention against formulas; `heads` maps [B, S, H, d] and the table to [B, H, S, d].
void check_qk(bool rotates, const std::function<at::Tensor(const at::Tensor&, bool is_query)>& heads) {
  const AttentionConfig config = config_with_norm();
  RotaryTable table = make_rotary(config.rotary, dim, num_positions);
  if (!rotates) table = table.without_angles();
  check_function(
      {{random({2, num_positions, width}, 1)},
       {random({num_heads * dim, width}, 2, 0.4), random({groups * dim, width}, 3, 0.4),
        random({groups * dim, width}, 4, 0.4)}},
      [&](auto& x, auto& w, auto* queue) {
        AttentionWeights weights;
        weights.q_proj = w[0];
        weights.k_proj = w[1];
        weights.v_proj = w[2];
        const Qkv parts = qkv(x[0], weights, config, table, eps, queue);
        return std::vector{parts.q, parts.k, parts.v};
      },
      [&](auto& x, auto& w) {
        auto split = [&](const at::Tensor& weight) { return at::matmul(x[0], weight.t()).unflatten(-1, {-1, dim}); };
        return std::vector{heads(split(w[0]), true), heads(split(w[1]), false), split(w[2]).transpose(1, 2)};
      },
      with_products());
}

TEST(UnlikeLayers, RotatedHeadsAreNormedAfterwards) {
  check_qk(true, [](const at::Tensor& x, bool) {
    const at::Tensor frequency = at::pow(10000.0, at::arange(dim / 2, at::kDouble) * (-2.0 / dim));
    const at::Tensor angle = at::outer(at::arange(num_positions, at::kDouble), frequency).unsqueeze(1);
    const at::Tensor a = x.slice(-1, 0, dim, 2), b = x.slice(-1, 1, dim, 2);
    const at::Tensor turned =
        at::stack({a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()}, -1).flatten(-2);
    return (turned / (turned.square().mean(-1, true) + eps).sqrt()).transpose(1, 2);
  });
}

TEST(UnlikeLayers, UnrotatedQueriesHaveATemperatureAndNoNorm) {
  check_qk(false, [](const at::Tensor& x, bool is_query) {
    if (!is_query) return x.transpose(1, 2);
    std::vector<double> factors;
    for (int64_t i = 0; i < num_positions; ++i) factors.push_back(1 + 0.5 * std::log(1 + std::floor((i + 1) / 4.0)));
    return x.transpose(1, 2) * at::tensor(factors, at::kDouble).unsqueeze(-1);
  });
}

TEST(UnlikeLayers, TemperatureFollowsPositions) {
  const RotaryTable table = make_rotary(config_with_norm().rotary, dim, 20);
  const at::Tensor positions = at::tensor({0, 3, 11, 0}, at::kLong).view({2, 2});
  const RotaryTable rows = table.positions(positions).without_angles();
  EXPECT_FALSE(rows.rotates());
  ASSERT_EQ(rows.temperature.sizes(), at::IntArrayRef({2, 1, 2, 1}));
  EXPECT_BITS_EQUAL(rows.temperature[1][0][0], table.temperature[11]);
  EXPECT_FALSE(make_rotary(RotaryConfig{}, dim, 20).temperature.defined());
}

// Independent of how it is computed: wave lengths against the original context of 8192, factors 1 and 4.
TEST(Llama3Scaling, KeepsFastPairsAndSlowsSlowOnes) {
  RotaryConfig config;
  config.theta = 500000.0;
  config.llama3 = Llama3Scaling{.factor = 8, .low_freq_factor = 1, .high_freq_factor = 4};
  const auto scaled = rotary_frequencies(config, 128);
  bool kept = false, slowed = false, between = false;
  for (int64_t i = 0; i < 64; ++i) {
    const double plain = std::pow(500000.0, -2.0 * i / 128), wave = 2 * M_PI / plain;
    if (wave < 8192.0 / 4) {
      kept = true;
      EXPECT_EQ(scaled[i], plain) << i;
    } else if (wave > 8192.0) {
      slowed = true;
      EXPECT_DOUBLE_EQ(scaled[i], plain / 8) << i;
    } else {
      between = true;
      const double smooth = (8192.0 / wave - 1) / 3;
      EXPECT_NEAR(scaled[i] / ((1 - smooth) * plain / 8 + smooth * plain), 1, 1e-12) << i;
    }
  }
  EXPECT_TRUE(kept && slowed && between);
  config.llama3->high_freq_factor = 1;  // Scout: a step and no ramp
  for (const double frequency : rotary_frequencies(config, 128)) EXPECT_TRUE(std::isfinite(frequency));
}

}  // namespace
}  // namespace farskip::nn
