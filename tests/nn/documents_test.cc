// Documents packed into sequences: each gets the attention and the positions that it would have alone.

#include <gmock/gmock.h>

#include "base/error.h"
#include "check_function.h"
#include "nn/attention.h"

namespace farskip::nn {
namespace {

constexpr double scale = 0.3;
const Documents documents = {{1, 7, 200, 2, 40}, {250}, {100, 150}};
constexpr int64_t num_positions = 250;

/// Output of one attention and the gradients of q, k and v for a given gradient of the output.
std::vector<at::Tensor> differentiated(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       const at::Tensor& gradient, const Documents& inside) {
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& x : {q, k, v}) inputs.push_back(x.detach().clone().set_requires_grad(true));
  const at::Tensor o = attn_core(inputs[0], inputs[1], inputs[2], scale, inside);
  o.backward(gradient);
  std::vector<at::Tensor> result = {o.detach()};
  for (const at::Tensor& x : inputs) result.push_back(x.grad());
  return result;
}

struct Heads {
  int64_t queries, keys, qk_dim, v_dim;
};

TEST(Documents, HaveTheBitsOfEachAlone) {
  for (const Heads& heads : {Heads{4, 4, 24, 16}, Heads{4, 2, 16, 16}}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const int64_t B = static_cast<int64_t>(documents.size());
      const at::Tensor q = random({B, heads.queries, num_positions, heads.qk_dim}, 1).to(dtype);
      const at::Tensor k = random({B, heads.keys, num_positions, heads.qk_dim}, 2).to(dtype);
      const at::Tensor v = random({B, heads.keys, num_positions, heads.v_dim}, 3).to(dtype);
      const at::Tensor gradient = random({B, num_positions, heads.queries * heads.v_dim}, 4).to(dtype);
      const auto packed = differentiated(q, k, v, gradient, documents);
      ASSERT_EQ(packed[0].sizes(), gradient.sizes());
      for (int64_t b = 0; b < B; ++b) {
        int64_t begin = 0;
        for (const int64_t n : documents[b]) {
          auto part = [&](const at::Tensor& x, int64_t dim) { return x.narrow(0, b, 1).narrow(dim, begin, n).clone(); };
          const auto alone = differentiated(part(q, 2), part(k, 2), part(v, 2), part(gradient, 1), {});
          EXPECT_BITS_EQUAL(part(packed[0], 1), alone[0]) << "document of " << n;
          for (size_t i = 1; i < alone.size(); ++i)
            EXPECT_BITS_EQUAL(part(packed[i], 2), alone[i]) << "document of " << n << ", gradient " << i;
          begin += n;
        }
      }
      // A control: across documents there is something to see.
      EXPECT_GT(relative_difference(packed[0], differentiated(q, k, v, gradient, {})[0]), 0.1);
    }
  }
}

TEST(Documents, AreBlocksOfACausalMask) {
  const Documents inside = {{3, 1, 20}, {24}};
  at::Tensor allowed = at::zeros({2, 1, 24, 24}, at::kBool);
  for (size_t b = 0; b < inside.size(); ++b) {
    int64_t begin = 0;
    for (const int64_t n : inside[b]) {
      allowed[static_cast<int64_t>(b)][0].narrow(0, begin, n).narrow(1, begin, n).copy_(at::ones({n, n}).tril());
      begin += n;
    }
  }
  check_function(
      {{random({2, 4, 24, 12}, 1), random({2, 2, 24, 12}, 2), random({2, 2, 24, 8}, 3)}, {}},
      [&](auto& x, auto&, auto*) { return std::vector{attn_core(x[0], x[1], x[2], scale, inside)}; },
      [&](auto& x, auto&) {
        const at::Tensor k = x[1].repeat_interleave(2, 1), v = x[2].repeat_interleave(2, 1);
        const at::Tensor scores = (at::matmul(x[0], k.transpose(2, 3)) * scale).masked_fill(~allowed, -1e30);
        return std::vector{at::matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2)};
      });
}

TEST(Documents, OfAnotherLengthAreRefused) {
  const at::Tensor x = random({2, 1, 6, 4}, 1).to(at::kFloat);
  EXPECT_THROW(attn_core(x, x, x, scale, Documents{{6}, {3, 2}}), std::exception);
}

TEST(Positions, ThatBeginAnewGiveTheRotationOfEachDocument) {
  for (const bool interleaved : {false, true}) {
    RotaryConfig config;
    config.interleaved = interleaved;
    const RotaryTable table = make_rotary(config, 8, 6);
    const at::Tensor positions = at::tensor({0, 1, 2, 0, 1, 0, 0, 1, 2, 3, 4, 5}, at::kLong).view({2, 6});
    const at::Tensor plain = random({2, 6, 4, 5}, 1), rope = random({2, 6, 1, 8}, 2);
    const at::Tensor packed = rotate_heads(plain, rope, table.positions(positions));
    EXPECT_BITS_EQUAL(packed.narrow(0, 1, 1),
                      rotate_heads(plain.narrow(0, 1, 1), rope.narrow(0, 1, 1), table.positions(0, 6)));
    int64_t begin = 0;
    for (const int64_t n : {3, 2, 1}) {
      auto part = [&](const at::Tensor& x) { return x.narrow(0, 0, 1).narrow(1, begin, n); };
      EXPECT_BITS_EQUAL(packed.narrow(0, 0, 1).narrow(2, begin, n),
                        rotate_heads(part(plain), part(rope), table.positions(0, n)));
      begin += n;
    }
    EXPECT_GT(relative_difference(packed, rotate_heads(plain, rope, table)), 0.1);
    // The gradient turns back by the same angles.
    const at::Tensor x = rope.clone().requires_grad_(), dy = random({2, 4, 6, 13}, 3);
    rotate_heads(plain, x, table.positions(positions)).backward(dy);
    const at::Tensor one = rope.narrow(0, 0, 1).narrow(1, 3, 2).clone().requires_grad_();
    rotate_heads(plain.narrow(0, 0, 1).narrow(1, 3, 2), one, table.positions(0, 2))
        .backward(dy.narrow(0, 0, 1).narrow(2, 3, 2));
    EXPECT_BITS_EQUAL(x.grad().narrow(0, 0, 1).narrow(1, 3, 2), one.grad());
  }
}

TEST(Positions, OutsideTheTableAreNamed) {
  const RotaryTable table = make_rotary({}, 4, 8);
  for (const int64_t bad : {8, -1}) {
    try {
      table.positions(at::tensor({int64_t{3}, bad}, at::kLong).view({1, 2}));
      ADD_FAILURE() << "accepted " << bad;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("the rotary table holds 8"));
    }
  }
}

}  // namespace
}  // namespace farskip::nn
