#include "nn/inference_weight.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "check_function.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

/// |y - exact| relative to |exact|, both in fp64.
double relative_distance(const at::Tensor& y, const at::Tensor& exact) {
  return (y.to(at::kDouble) - exact).norm().item<double>() / std::max(exact.norm().item<double>(), 1e-30);
}

/// The matrix of an expert as products with x read it.
at::Tensor matrix(const InferenceWeight& weight, const at::Tensor& x, int64_t expert = 0) {
  const at::Tensor all = weight.decoded().view({weight.num_experts(), weight.rows(), weight.depth()});
  return (weight.format() == WeightFormat::int4 ? all[expert].to(x.scalar_type()) : all[expert]).to(at::kDouble);
}

at::Tensor exact_product(const at::Tensor& x, const InferenceWeight& weight, int64_t expert = 0) {
  return x.to(at::kDouble).matmul(matrix(weight, x, expert).t());
}

struct ProductCase {
  at::ScalarType x, weight;
  Quantization quantization;
  bool portable;
};

class Products : public testing::TestWithParam<ProductCase> {
 protected:
  void SetUp() override {
    if (!GetParam().portable && !tiles::supported(GetParam().x))
      GTEST_SKIP() << "this processor lacks the instructions";
  }
  double bound() const { return GetParam().x == at::kFloat ? 2e-6 : 5e-3; }
  at::Tensor x(at::IntArrayRef shape, uint64_t seed) const { return random(shape, seed).to(GetParam().x); }
  InferenceWeight weight(at::IntArrayRef shape, uint64_t seed) const {
    return InferenceWeight(random(shape, seed, 0.05).to(GetParam().weight), GetParam().quantization,
                           GetParam().portable);
  }
  ProductOptions options() const { return {.batch_invariant = true}; }
};

/// Every remainder of rows, columns and inner sizes.
TEST_P(Products, OfAllShapes) {
  for (const int64_t k : {1, 2, 15, 16, 33, 63, 66, 200}) {
    for (const int64_t n : {1, 4, 5, 64, 65, 130}) {
      const InferenceWeight w = weight({n, k}, 2);
      for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 20}) {
        const at::Tensor rows = x({m, k}, 1);
        ASSERT_LT(relative_distance(w.multiply(rows, {}, options()), exact_product(rows, w)), bound())
            << m << " x " << k << " x " << n;
      }
    }
  }
}

TEST_P(Products, OfPartsWithBias) {
  const at::Tensor all = x({3, 7, 80}, 1), rows = all.slice(2, 5, 75), bias = x({50}, 3);
  const InferenceWeight w = weight({50, 70}, 2);
  const at::Tensor y = w.multiply(rows, bias, options());
  EXPECT_EQ(y.sizes(), at::IntArrayRef({3, 7, 50}));
  EXPECT_EQ(y.scalar_type(), GetParam().x);
  EXPECT_LT(relative_distance(y, exact_product(rows, w) + bias.to(at::kDouble)), bound());
  EXPECT_LT(relative_distance(w.multiply(all.slice(2, 0, 70).slice(0, 0, 1), {}, options()),
                              exact_product(all.slice(2, 0, 70).slice(0, 0, 1), w)),
            bound());
  const at::Tensor columns = x({70, 9}, 4).t();  // K is not the dense index
  EXPECT_LT(relative_distance(w.multiply(columns, {}, options()), exact_product(columns, w)), bound());
}

TEST_P(Products, BitsDependNeitherOnTheOtherRowsNorOnThreads) {
  const InferenceWeight w = weight({700, 333}, 1);
  const at::Tensor rows = x({17, 333}, 2), y = w.multiply(rows, {}, options());
  for (int64_t m = 0; m < 17; ++m)
    EXPECT_BITS_EQUAL(w.multiply(rows.narrow(0, m, 1), {}, options()), y.narrow(0, m, 1));
  for (const int64_t num : {2, 5, 6, 8}) {
    EXPECT_BITS_EQUAL(w.multiply(rows.narrow(0, 3, num), {}, options()), y.narrow(0, 3, num));
  }
  const int num_threads = at::get_num_threads();
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    EXPECT_BITS_EQUAL(w.multiply(rows, {}, options()), y);
  }
  at::set_num_threads(num_threads);
}

TEST_P(Products, OfExperts) {
  const InferenceWeight w = weight({5, 150, 96}, 1);
  for (const std::vector<int64_t>& offsets :
       {std::vector<int64_t>{0, 0, 1, 1, 1, 3}, {0, 9, 9, 10, 25, 25}, {0, 0, 0, 0, 0, 0}}) {
    const at::Tensor rows = x({offsets.back(), 96}, 2), y = w.multiply_experts(rows, at::tensor(offsets), options());
    EXPECT_EQ(y.sizes(), at::IntArrayRef({offsets.back(), 150}));
    for (int64_t e = 0; e < 5; ++e) {
      const at::Tensor part = rows.slice(0, offsets[e], offsets[e + 1]);
      if (part.size(0) == 0) continue;
      EXPECT_LT(relative_distance(y.slice(0, offsets[e], offsets[e + 1]), exact_product(part, w, e)), bound());
    }
  }
}

/// Without batch_invariant many rows may be multiplied otherwise: the same product within rounding.
TEST_P(Products, OfManyRows) {
  const ProductOptions fast;
  for (const int64_t k : {256, 77}) {
    const InferenceWeight w = weight({300, k}, 1);
    const at::Tensor rows = x({200, k}, 2), bias = x({300}, 3), exact = exact_product(rows, w);
    EXPECT_LT(relative_distance(w.multiply(rows, {}, fast), exact), bound());
    EXPECT_LT(relative_distance(w.multiply(rows, bias, fast), exact + bias.to(at::kDouble)), bound());
  }
}

TEST_P(Products, OfManyRowsOfExperts) {
  const InferenceWeight w = weight({3, 100, 77}, 1);
  const at::Tensor rows = x({90, 77}, 2);
  const at::Tensor y = w.multiply_experts(rows, at::tensor({0L, 70L, 71L, 90L}));
  for (int64_t e = 0, first = 0; const int64_t end : {70, 71, 90}) {
    EXPECT_LT(relative_distance(y.slice(0, first, end), exact_product(rows.slice(0, first, end), w, e++)), bound());
    first = end;
  }
}

TEST_P(Products, WithNothingToDo) {
  EXPECT_EQ(weight({7, 32}, 1).multiply(x({0, 32}, 2), {}, options()).sizes(), at::IntArrayRef({0, 7}));
  EXPECT_EQ(weight({0, 32}, 1).multiply(x({3, 32}, 2), {}, options()).sizes(), at::IntArrayRef({3, 0}));
}

TEST_P(Products, KeepNotANumberInItsRow) {
  const InferenceWeight w = weight({20, 50}, 1);
  const at::Tensor rows = x({7, 50}, 2);
  rows[3][49] = NAN;
  const at::Tensor y = w.multiply(rows, {}, options());
  EXPECT_TRUE(at::isnan(y[3]).all().item<bool>());
  EXPECT_EQ(at::isnan(y).sum().item<int64_t>(), 20);
}

std::vector<ProductCase> product_cases() {
  std::vector<ProductCase> all;
  for (const bool portable : {false, true}) {
    for (const auto x : {at::kFloat, at::kBFloat16}) {
      all.push_back({x, x, Quantization::none, portable});
      for (const auto quantization : {Quantization::int8, Quantization::int4})
        all.push_back({x, at::kBFloat16, quantization, portable});
    }
  }
  return all;
}

std::string product_name(const testing::TestParamInfo<ProductCase>& info) {
  const char* quantization = info.param.quantization == Quantization::none   ? ""
                             : info.param.quantization == Quantization::int8 ? "Int8"
                                                                             : "Int4";
  return fmt::format("{}Times{}{}{}", c10::toString(info.param.x), c10::toString(info.param.weight), quantization,
                     info.param.portable ? "Portable" : "");
}

INSTANTIATE_TEST_SUITE_P(Types, Products, testing::ValuesIn(product_cases()), product_name);

TEST(InferenceWeight, KeepsEveryElementWhereNotQuantised) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const bool portable : {false, true}) {
      for (const int64_t n : {1, 16, 80, 130}) {
        for (const int64_t k : {1, 15, 64, 77}) {
          const at::Tensor weight = random({3, n, k}, 1).to(type);
          const InferenceWeight w(weight, Quantization::none, portable);
          EXPECT_EQ(w.packed(), !portable && tiles::supported(type));
          EXPECT_BITS_EQUAL(w.decoded(), weight.to(at::kFloat));
        }
      }
    }
  }
  EXPECT_EQ(InferenceWeight(at::zeros({3, 80, 16})).nbytes(), 3 * 80 * 16 * 4);
}

/// Packed weights give the same bits for a row whatever is beside it, asked to or not.
TEST(InferenceWeight, PackedIsBatchInvariantAnyway) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    if (!tiles::supported(type)) continue;
    const InferenceWeight w(random({300, 77}, 1).to(type));
    const at::Tensor x = random({90, 77}, 2).to(type), bias = random({300}, 3).to(type), y = w.multiply(x, bias);
    for (const int64_t num : {1, 5, 31, 64})
      EXPECT_BITS_EQUAL(w.multiply(x.narrow(0, 7, num), bias), y.narrow(0, 7, num));
  }
}

TEST(InferenceWeight, IsAssembledFromPieces) {
  const at::Tensor weight = random({4, 150, 40}, 1).to(at::kBFloat16);
  for (const auto type : {at::kBFloat16, at::kFloat}) {
    for (const auto quantization : {Quantization::none, Quantization::int8, Quantization::int4}) {
      InferenceWeight pieces({4, 150, 40}, type, quantization);
      for (int64_t e = 3; e >= 0; --e) {
        for (const auto& [first, end] : {std::pair(10, 140), {140, 150}, {0, 10}})
          pieces.put(weight[e].slice(0, first, end), first, e);
      }
      EXPECT_BITS_EQUAL(pieces.decoded(), InferenceWeight(weight.to(type), quantization).decoded());
      InferenceWeight matrix({150, 40}, type, quantization);
      matrix.put(weight[2]);
      EXPECT_BITS_EQUAL(matrix.decoded(), pieces.decoded()[2]);
    }
  }
}

TEST(InferenceWeight, SaysWhatDoesNotFit) {
  const auto message = [](const auto& f) -> std::string {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  InferenceWeight w({24, 40}, at::kBFloat16, Quantization::int8);
  EXPECT_THAT(message([&] { w.put(at::zeros({25, 40})); }), testing::HasSubstr("[25, 40]"));
  EXPECT_THAT(message([&] { w.put(at::zeros({5, 40}), 20); }), testing::HasSubstr("row 20"));
  EXPECT_THAT(message([&] { w.put(at::zeros({5, 40}), 0, 1); }), testing::HasSubstr("expert 1"));
  EXPECT_THAT(message([&] { w.put(at::full({24, 40}, INFINITY)); }), testing::HasSubstr("not finite"));
  EXPECT_THAT(message([&] { w.multiply(at::zeros({2, 41})); }), testing::HasSubstr("41"));
  EXPECT_THAT(message([&] { w.multiply(at::zeros({2, 40}, at::kHalf)); }), testing::HasSubstr("Half"));
  EXPECT_THAT(message([&] {
                InferenceWeight(at::zeros({2, 40})).multiply(at::zeros({2, 40}, at::kBFloat16));
              }),
              testing::HasSubstr("float32"));
  EXPECT_THAT(message([&] {
                InferenceWeight(at::zeros({2, 40}, at::kBFloat16)).multiply(at::zeros({2, 40}));
              }),
              testing::HasSubstr("bfloat16"));
  EXPECT_THAT(message([&] { InferenceWeight(at::zeros({2, 40}, at::kHalf)); }), testing::HasSubstr("Half"));
  EXPECT_THAT(message([&] { parse_quantization("int5"); }), testing::HasSubstr("int8"));
  EXPECT_EQ(parse_quantization("int4"), Quantization::int4);
}

}  // namespace
}  // namespace farskip::nn
