#include "nn/linear.h"

#include <gmock/gmock.h>

#include <limits>

#include "base/error.h"
#include "check_function.h"
#include "nn/norm.h"

namespace farskip::nn {
namespace {

at::Tensor silu_by_hand(const at::Tensor& x) { return x / (1.0 + (-x).exp()); }

TEST(Linear, MatchesProduct) {
  check_function(
      {{random({2, 9, 24}, 1)}, {random({40, 24}, 2, 0.2)}},
      [](auto& x, auto& w, auto* queue) { return std::vector{linear(x[0], w[0], queue)}; },
      [](auto& x, auto& w) {
        return std::vector{at::einsum("bsi,oi->bso", {x[0], w[0]})};
      },
      with_products());
}

TEST(Linear, MatchesProductWithBias) {
  check_function(
      {{random({33, 24}, 1)}, {random({40, 24}, 2, 0.2), random({40}, 3)}},
      [](auto& x, auto& w, auto* queue) { return std::vector{linear(x[0], w[0], w[1], queue)}; },
      [](auto& x, auto& w) {
        return std::vector{at::einsum("ti,oi->to", {x[0], w[0]}) + w[1]};
      },
      with_products());
}

TEST(Linear, BiasOfThreeDimensionalInput) {
  check_function(
      {{random({2, 16, 24}, 1)}, {random({40, 24}, 2, 0.2), random({40}, 3)}},
      [](auto& x, auto& w, auto* queue) { return std::vector{linear(x[0], w[0], w[1], queue)}; },
      [](auto& x, auto& w) {
        return std::vector{at::einsum("bsi,oi->bso", {x[0], w[0]}) + w[1]};
      },
      with_products());
}

TEST(Linear, LargeEnoughForThreads) {
  check_function(
      {{random({300, 256}, 1)}, {random({320, 256}, 2, 0.1)}},
      [](auto& x, auto& w, auto* queue) { return std::vector{linear(x[0], w[0], queue)}; },
      [](auto& x, auto& w) {
        return std::vector{at::einsum("ti,oi->to", {x[0], w[0]})};
      },
      with_products());
}

/// On each processor, whoever multiplies there: sums are fp32 and rounded at the end, in backward as well.
TEST(Linear, SumsOfBf16AreWide) {
  const auto bf16 = [](at::IntArrayRef shape, uint64_t seed) { return random(shape, seed).to(at::kBFloat16); };
  const at::Tensor x = bf16({3, 500, 400}, 1), w = bf16({130, 400}, 2), b = bf16({130}, 3), dy = bf16({3, 500, 130}, 4);
  const auto distance = [](const at::Tensor& value, const at::Tensor& exact) {
    return ((value.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
  };
  const at::Tensor x_64 = x.to(at::kDouble).view({1500, 400}), w_64 = w.to(at::kDouble),
                   dy_64 = dy.to(at::kDouble).view({1500, 130});
  for (const bool whole_graph : {false, true}) {
    const at::Tensor x_in = x.detach().requires_grad_(), weight = w.detach().requires_grad_(whole_graph),
                     bias = b.detach().requires_grad_(whole_graph);
    WeightGradQueue queue;
    const at::Tensor y = linear(x_in, {weight, 0}, {bias, 1}, whole_graph ? nullptr : &queue);
    y.backward(dy);
    at::Tensor grads[2] = {weight.grad(), bias.grad()};
    queue.drain([&](int id, const at::Tensor& grad) { grads[id] = grad; });
    EXPECT_LT(distance(y.view({1500, 130}), x_64.mm(w_64.t()) + b.to(at::kDouble)), 3e-3);
    EXPECT_LT(distance(x_in.grad().view({1500, 400}), dy_64.mm(w_64)), 3e-3);
    EXPECT_LT(distance(grads[0], dy_64.t().mm(x_64)), 3e-3);
    EXPECT_LT(distance(grads[1], dy_64.sum(0)), 3e-3);
  }
}

TEST(Linear, NoRowsGiveZeroGradient) {
  const at::Tensor x = at::zeros({0, 8}).requires_grad_();
  WeightGradQueue queue;
  const at::Tensor y = linear(x, {at::ones({4, 8}), 7}, &queue);
  EXPECT_EQ(y.sizes(), at::IntArrayRef({0, 4}));
  y.sum().backward();
  int num_grads = 0;
  queue.drain([&](int id, const at::Tensor& grad) {
    ++num_grads;
    EXPECT_EQ(id, 7);
    EXPECT_BITS_EQUAL(grad, at::zeros({4, 8}));
  });
  EXPECT_EQ(num_grads, 1);
}

TEST(Linear, WithoutQueueLeavesNothingBehind) {
  const at::Tensor x = random({3, 8}, 1).requires_grad_();
  linear(x, {random({4, 8}, 2), 0}, nullptr).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(linear(x.detach(), {random({4, 8}, 2), 0}, nullptr).requires_grad());
}

TEST(Linear, QueueWithoutGraphIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  WeightGradQueue queue;
  EXPECT_DEATH(linear(at::ones({2, 4}), {at::ones({3, 4}), 0}, &queue), "requires_grad");
}

TEST(Linear, ClosureKeepsNoGraphAlive) {
  const at::Tensor x = at::ones({2, 4}).requires_grad_();
  WeightGradQueue queue;
  c10::weak_intrusive_ptr<c10::TensorImpl> middle(at::ones({1}).getIntrusivePtr());
  {
    const at::Tensor hidden = x * 2;
    middle = hidden.getIntrusivePtr();
    linear(hidden, {at::ones({3, 4}), 0}, &queue).sum().backward();
  }
  EXPECT_TRUE(middle.expired());  // the storage lives on in the queue, the graph behind it does not
  queue.drain([](int, const at::Tensor& grad) { EXPECT_BITS_EQUAL(grad, at::full({3, 4}, 4.0)); });
}

TEST(Embedding, SumsRepeatedIdsInOrder) {
  const at::Tensor ids = at::tensor({3, 1, 3, 0, 3, 1}, at::kLong).view({2, 3});
  check_function(
      {{}, {random({5, 16}, 2)}}, [&](auto&, auto& w, auto* queue) { return std::vector{embedding(ids, w[0], queue)}; },
      [&](auto&, auto& w) { return std::vector{at::matmul(at::one_hot(ids, 5).to(at::kDouble), w[0])}; });
}

TEST(Embedding, RefusesForeignIds) {
  const Param table{at::ones({5, 2}), 0};
  for (const int64_t id : {-1, 5}) {
    try {
      embedding(at::tensor({int64_t{0}, id}), table, nullptr);
      FAIL() << "accepted " << id;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(std::to_string(id)));
      EXPECT_THAT(error.what(), testing::HasSubstr("5 rows"));
    }
  }
}

TEST(SwiGlu, GateComesFirst) {
  const at::Tensor y = swiglu(at::tensor({1.0, -2.0, 10.0, 100.0}).view({1, 4}));
  EXPECT_NEAR(y[0][0].item<double>(), 10.0 / (1.0 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(y[0][1].item<double>(), -200.0 / (1.0 + std::exp(2.0)), 1e-5);
}

TEST(SwiGlu, MatchesFormula) {
  check_function(
      {{random({2, 7, 24}, 1, 2.0)}, {}}, [](auto& x, auto&, auto*) { return std::vector{swiglu(x[0])}; },
      [](auto& x, auto&) { return std::vector{silu_by_hand(x[0].slice(-1, 0, 12)) * x[0].slice(-1, 12, 24)}; });
}

/// Against the library's own operations and their autograd, value by value.
TEST(SwiGlu, AgreesWithStockOperations) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor a = random({50, 62}, 1, 3.0).to(type).requires_grad_();
    const at::Tensor b = a.detach().to(at::kFloat).requires_grad_();
    const at::Tensor ours = swiglu(a), stock = at::silu(b.narrow(-1, 0, 31)) * b.narrow(-1, 31, 31);
    const at::Tensor dy = random({50, 31}, 2).to(type);
    ours.backward(dy);
    stock.backward(dy.to(at::kFloat));
    const double tolerance = type == at::kFloat ? 2e-6 : 5e-3;  // half a unit in the last place of bf16 is 2^-8
    EXPECT_TRUE(at::allclose(ours.to(at::kFloat), stock, tolerance, 1e-6));
    EXPECT_TRUE(at::allclose(a.grad().to(at::kFloat), b.grad(), tolerance, 1e-6));
  }
}

TEST(SwiGlu, LargeGatesNeitherOverflowNorLoseNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const at::Tensor gate = at::tensor({-1e30F, -200.0F, -90.0F, 0.0F, 90.0F, 1e30F, nan, infinity});
  const at::Tensor x = at::cat({gate, at::ones({8})}).view({1, 16}).requires_grad_();
  const at::Tensor y = swiglu(x)[0];
  y.sum().backward();
  for (const int64_t i : {0, 1, 2, 3}) EXPECT_NEAR(y[i].item<double>(), 0, 1e-30) << i;
  EXPECT_EQ(y[4].item<float>(), 90.0F);
  EXPECT_EQ(y[5].item<float>(), 1e30F);
  EXPECT_TRUE(std::isnan(y[6].item<float>()));
  EXPECT_EQ(y[7].item<float>(), infinity);
  EXPECT_EQ(x.grad()[0][3].item<float>(), 0.5F);
  EXPECT_EQ(x.grad()[0][4].item<float>(), 1.0F);
}

TEST(FeedForward, MatchesFormula) {
  check_function(
      {{random({11, 16}, 1)}, {random({40, 16}, 2, 0.3), random({16, 20}, 3, 0.3)}},
      [](auto& x, auto& w, auto* queue) {
        return std::vector{feed_forward(x[0], {w[0], w[1]}, queue)};
      },
      [](auto& x, auto& w) {
        const at::Tensor gate = x[0].mm(w[0].slice(0, 0, 20).t()), up = x[0].mm(w[0].slice(0, 20, 40).t());
        return std::vector{(silu_by_hand(gate) * up).mm(w[1].t())};
      },
      with_products());
}

at::Tensor reference_norm(const at::Tensor& x, const at::Tensor& w, double eps) {
  return w * x / (x.square().mean(-1, true) + eps).sqrt();
}

TEST(RmsNorm, MatchesFormula) {
  for (const int64_t dim : {8, 24, 100}) {
    check_function(
        {{random({2, 9, dim}, 1)}, {random({dim}, 2)}},
        [](auto& x, auto& w, auto* queue) { return std::vector{rms_norm(x[0], w[0], 1e-3, queue)}; },
        [](auto& x, auto& w) { return std::vector{reference_norm(x[0], w[0], 1e-3)}; });
  }
}

TEST(RmsNorm, StridedRowsAndManyOfThem) {
  check_function(
      {{random({3, 200, 96}, 1)}, {random({64}, 2)}},
      [](auto& x, auto& w, auto* queue) { return std::vector{rms_norm(x[0].narrow(-1, 0, 64), w[0], 1e-6, queue)}; },
      [](auto& x, auto& w) { return std::vector{reference_norm(x[0].narrow(-1, 0, 64), w[0], 1e-6)}; });
}

TEST(RmsNorm, RoundsBeforeTheWeightAsHuggingFaceDoes) {
  const at::Tensor x = random({40, 64}, 1).to(at::kBFloat16), w = random({64}, 2).to(at::kBFloat16);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor expected = w * (wide * at::rsqrt(wide.square().mean(-1, true) + 1e-6)).to(at::kBFloat16);
  const at::Tensor y = rms_norm(x, {w, 0}, 1e-6, nullptr);
  EXPECT_LE((y != expected).sum().item<int64_t>(), 5);  // rsqrt may differ in the last bit, and a rounding with it
}

TEST(RmsNorm, NoRows) {
  const at::Tensor x = at::zeros({0, 8}).requires_grad_();
  WeightGradQueue queue;
  rms_norm(x, {at::ones({8}), 0}, 1e-6, &queue).sum().backward();
  queue.drain([](int, const at::Tensor& grad) { EXPECT_BITS_EQUAL(grad, at::zeros({8})); });
}

}  // namespace
}  // namespace farskip::nn
