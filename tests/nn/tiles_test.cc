#include "nn/tiles.h"

#include <ATen/Parallel.h>

#include "check_function.h"
#include "nn/matrix_unit.h"

namespace farskip::nn {
namespace {

/// |x - exact| relative to |exact|, both in fp64.
double tile_distance(const at::Tensor& x, const at::Tensor& exact) {
  const double size = exact.norm().item<double>();
  return (x.to(at::kDouble) - exact).norm().item<double>() / std::max(size, 1e-30);
}

class Tiles : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (!tiles::supported(GetParam())) GTEST_SKIP() << "this processor lacks the instructions";
  }
  double bound() const { return GetParam() == at::kFloat ? 2e-6 : 4e-3; }
  at::Tensor make(at::IntArrayRef shape, uint64_t seed) const { return random(shape, seed).to(GetParam()); }
};

/// Every remainder of rows, columns and inner sizes, and operands that lie either way.
TEST_P(Tiles, ProductsOfAllShapes) {
  for (const int64_t m : {1, 2, 5, 6, 7, 12, 23, 50}) {
    for (const int64_t k : {1, 2, 3, 16, 31, 66}) {
      for (const int64_t n : {1, 15, 16, 17, 63, 64, 65, 150}) {
        for (const bool a_lies : {false, true}) {
          for (const bool b_lies : {false, true}) {
            const at::Tensor a = a_lies ? make({k, m}, 1).t() : make({m, k}, 1);
            const at::Tensor b = b_lies ? make({n, k}, 2).t() : make({k, n}, 2);
            const at::Tensor out = at::full({m, n}, NAN, a.options());
            tiles::product(out, a, b);
            const at::Tensor exact = a.to(at::kDouble).mm(b.to(at::kDouble));
            ASSERT_LT(tile_distance(out, exact), bound()) << m << " x " << k << " x " << n << a_lies << b_lies;
          }
        }
      }
    }
  }
}

/// Views of larger matrices, as rows of experts are.
TEST_P(Tiles, ProductsOfParts) {
  const at::Tensor all = make({40, 70}, 3), b = make({70, 33}, 4);
  const at::Tensor a = all.slice(0, 3, 14).slice(1, 5, 38), columns = b.slice(0, 7, 40).slice(1, 1, 32);
  const at::Tensor out = at::empty({11, 31}, a.options());
  tiles::product(out, a, columns);
  EXPECT_LT(tile_distance(out, a.to(at::kDouble).mm(columns.to(at::kDouble))), bound());
}

TEST_P(Tiles, BitsDependNeitherOnThreadsNorOnTheOtherRows) {
  const at::Tensor a = make({50, 130}, 5), b = make({700, 130}, 6).t();
  const at::Tensor whole = at::empty({50, 700}, a.options()), row = at::empty({1, 700}, a.options()),
                   one_thread = at::empty_like(whole);
  tiles::product(whole, a, b);
  for (const int64_t m : {0, 13, 49}) {
    tiles::product(row, a.narrow(0, m, 1), b);
    EXPECT_BITS_EQUAL(row, whole.narrow(0, m, 1));
  }
  at::parallel_for(0, 1, 1, [&](int64_t, int64_t) { tiles::product(one_thread, a, b); });
  EXPECT_BITS_EQUAL(one_thread, whole);
}

TEST_P(Tiles, NothingToDo) {
  tiles::product(make({0, 8}, 7), make({0, 4}, 8), make({4, 8}, 9));
  const at::Tensor out = make({3, 8}, 7);
  tiles::product(out, make({3, 0}, 8), make({0, 8}, 9));
  EXPECT_BITS_EQUAL(out, at::zeros_like(out));
}

TEST_P(Tiles, NotANumberStays) {
  at::Tensor a = make({7, 32}, 10);
  a[3][5] = NAN;
  const at::Tensor out = at::empty({7, 20}, a.options());
  tiles::product(out, a, make({32, 20}, 11));
  EXPECT_TRUE(at::isnan(out[3]).all().item<bool>());
  EXPECT_EQ(at::isnan(out).sum().item<int64_t>(), 20);
}

INSTANTIATE_TEST_SUITE_P(Types, Tiles, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(at::toString(info.param)); });

/// The order of sums that nn/matrix_unit.h promises, element by element; products of two bf16 are exact in fp32.
TEST(MatrixUnit, SumsOfBlocksOfEvenAndOddProducts) {
  if (!tiles::has_matrix_unit()) GTEST_SKIP() << "this processor has no matrix unit";
  const int64_t m = 21, k = 150, n = 50;
  const at::Tensor a = random({m, k}, 12).to(at::kBFloat16), b = random({k, n}, 13).to(at::kBFloat16);
  const at::Tensor x = a.to(at::kFloat), y = b.to(at::kFloat), expected = at::zeros({m, n});
  const auto at_x = x.accessor<float, 2>(), at_y = y.accessor<float, 2>();
  auto sum = expected.accessor<float, 2>();
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t block = 0; block < k; block += 32) {
        float parts[2] = {};
        for (int64_t l = block; l < std::min(block + 32, k); ++l) parts[l % 2] += at_x[i][l] * at_y[l][j];
        sum[i][j] += parts[0] + parts[1];
      }
    }
  }
  const at::Tensor out = at::empty({m, n}, a.options());
  tiles::product(out, a, b);
  EXPECT_BITS_EQUAL(out, expected.to(at::kBFloat16));
}

TEST(TileTypes, OthersGoToTheLibrary) {
  EXPECT_FALSE(tiles::supported(at::kDouble));
  const at::Tensor a = random({5, 6}, 1), b = random({6, 7}, 2), out = at::empty({5, 7}, a.options());
  tiles::product(out, a, b);
  EXPECT_BITS_EQUAL(out, a.mm(b));
}

}  // namespace
}  // namespace farskip::nn
