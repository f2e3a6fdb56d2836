#include "nn/flash_attention.h"

#include <ATen/Parallel.h>

#include "check_function.h"

namespace farskip::nn {
namespace {

struct Case {
  int64_t sequences, heads, groups, length, width, value_width;
  bool causal;
};

std::vector<Segment> whole_sequences(const Case& c) {
  std::vector<Segment> segments;
  for (int64_t b = 0; b < c.sequences; ++b) segments.push_back({b, 0, c.length});
  return segments;
}

struct Operands {
  at::Tensor q, k, v, gradient;
};

Operands operands(const Case& c, at::ScalarType type) {
  return {random({c.sequences, c.heads, c.length, c.width}, 1).to(type),
          random({c.sequences, c.groups, c.length, c.width}, 2).to(type),
          random({c.sequences, c.length, c.groups, c.value_width}, 3).to(type).transpose(1, 2),
          random({c.sequences, c.length, c.heads * c.value_width}, 4).to(type)};
}

/// Output and the gradients of q, k and v.
template <typename F>
std::vector<at::Tensor> results(const Operands& in, const F& attention) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : {in.q, in.k, in.v}) leaves.push_back(x.detach().requires_grad_(true));
  const at::Tensor o = attention(leaves[0], leaves[1], leaves[2]);
  o.backward(in.gradient.to(o.scalar_type()));
  return {o.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
}

/// In fp64 with the mask written out; `document` [B, S] numbers the segment of each row.
at::Tensor reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal,
                     const at::Tensor& document = {}) {
  const int64_t repeats = q.size(1) / k.size(1), length = q.size(2);
  const at::Tensor keys = k.repeat_interleave(repeats, 1), values = v.repeat_interleave(repeats, 1);
  at::Tensor hidden = at::ones({length, length}, at::kBool).triu(1).logical_and(at::full({}, causal)).unsqueeze(0);
  if (document.defined()) hidden = hidden.logical_or(document.unsqueeze(2) != document.unsqueeze(1));
  const at::Tensor scores = (q.matmul(keys.transpose(-1, -2)) * scale).masked_fill(hidden.unsqueeze(1), -1e30);
  return scores.softmax(-1).matmul(values).transpose(1, 2).flatten(2);
}

Operands in_fp64(const Operands& x) {
  return {x.q.to(at::kDouble), x.k.to(at::kDouble), x.v.to(at::kDouble), x.gradient.to(at::kDouble)};
}

void expect_near(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& exact, double bound) {
  const char* names[] = {"o", "dq", "dk", "dv"};
  for (size_t i = 0; i < exact.size(); ++i) {
    const double size = std::max(1e-2, exact[i].norm().item<double>());  // one row alone has gradients of zero
    const double error = (found[i].to(at::kDouble) - exact[i]).norm().item<double>() / size;
    EXPECT_LT(error, bound) << names[i];
  }
}

class FlashAttention : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (!has_flash_attention(at::empty({0}, GetParam()))) GTEST_SKIP() << "this processor lacks the instructions";
  }
  double bound() const { return GetParam() == at::kFloat ? 3e-6 : 1e-2; }
};

TEST_P(FlashAttention, AgreesWithTheFormula) {
  const Case cases[] = {{1, 1, 1, 1, 8, 8, true},      {2, 2, 2, 7, 12, 6, true},    {1, 2, 2, 96, 16, 16, true},
                        {1, 4, 2, 97, 24, 16, true},   {2, 2, 1, 200, 96, 64, true}, {1, 2, 2, 333, 192, 128, true},
                        {1, 2, 2, 130, 64, 64, false}, {1, 3, 1, 65, 7, 5, true},    {1, 1, 1, 64, 9, 80, false}};
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.length << " rows, " << c.width << " wide");
    const Operands in = operands(c, GetParam());
    const double scale = 1 / std::sqrt(c.width);
    const auto found = results(in, [&](const auto& q, const auto& k, const auto& v) {
      return flash_attention(q, k, v, scale, c.causal, whole_sequences(c));
    });
    const auto exact = results(
        in_fp64(in), [&](const auto& q, const auto& k, const auto& v) { return reference(q, k, v, scale, c.causal); });
    expect_near(found, exact, bound());
    EXPECT_EQ(found[3].strides(), in.v.strides()) << "the gradient of v lies as v does";
  }
}

TEST_P(FlashAttention, LargeScoresNeitherOverflowNorVanish) {
  Operands in = operands({1, 1, 1, 150, 16, 16, true}, GetParam());
  in.q = in.q * 60;
  const auto run = [](const auto& q, const auto& k, const auto& v) {
    return flash_attention(q, k, v, 1.0, true, {{0, 0, 150}});
  };
  const auto exact =
      results(in_fp64(in), [](const auto& q, const auto& k, const auto& v) { return reference(q, k, v, 1.0, true); });
  expect_near({results(in, run)[0]}, {exact[0]}, GetParam() == at::kFloat ? 1e-4 : 2e-2);
}

TEST_P(FlashAttention, SegmentsSeeThemselvesAlone) {
  const Case c{2, 2, 1, 230, 24, 16, true};
  const Operands in = operands(c, GetParam());
  const std::vector<Segment> segments = {{0, 0, 100}, {0, 100, 1}, {0, 101, 129}, {1, 0, 97}, {1, 97, 133}};
  at::Tensor document = at::zeros({2, 230}, at::kLong);
  for (size_t i = 0; i < segments.size(); ++i)
    document[segments[i].sequence].narrow(0, segments[i].begin, segments[i].length).fill_(static_cast<int64_t>(i));
  const auto found = results(
      in, [&](const auto& q, const auto& k, const auto& v) { return flash_attention(q, k, v, 0.2, true, segments); });
  expect_near(found,
              results(in_fp64(in), [&](const auto& q, const auto& k,
                                       const auto& v) { return reference(q, k, v, 0.2, true, document); }),
              bound());
}

TEST_P(FlashAttention, BitsDependOnTheSegmentAlone) {
  const Case c{2, 2, 2, 150, 24, 16, true};
  const Operands in = operands(c, GetParam());
  auto run = [&](const auto& q, const auto& k, const auto& v) {
    return flash_attention(q, k, v, 0.2, true, {{0, 0, 150}, {1, 0, 40}, {1, 40, 110}});
  };
  const auto found = results(in, run);
  at::parallel_for(0, 1, 1, [&](int64_t, int64_t) {  // one thread
    const auto again = results(in, run);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_BITS_EQUAL(again[i], found[i]);
  });
  auto part = [](const at::Tensor& x, int64_t dim) { return x.narrow(0, 1, 1).narrow(dim, 40, 110).contiguous(); };
  const Operands alone{part(in.q, 2), part(in.k, 2), part(in.v, 2), part(in.gradient, 1)};
  const auto own = results(alone, [](const auto& q, const auto& k, const auto& v) {
    return flash_attention(q, k, v, 0.2, true, {{0, 0, 110}});
  });
  for (size_t i = 0; i < found.size(); ++i) EXPECT_BITS_EQUAL(part(found[i], i == 0 ? 1 : 2), own[i].contiguous());
}

INSTANTIATE_TEST_SUITE_P(Types, FlashAttention, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(at::toString(info.param)); });

}  // namespace
}  // namespace farskip::nn
