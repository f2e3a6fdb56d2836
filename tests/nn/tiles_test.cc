#include "nn/tiles.h"

#include <ATen/Parallel.h>

#include "check_function.h"
#include "nn/matrix_unit.h"
#include "nn/tile_kernels.h"

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
  const at::Tensor a = make({50, 601}, 5), b = make({700, 601}, 6).t();  // more than is multiplied at a time
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

TEST_P(Tiles, RowsAreDividedWhereColumnsAreFew) {
  const at::Tensor a = make({601, 300}, 5), b = make({300, 20}, 6);
  const at::Tensor threads = at::empty({601, 20}, a.options()), one_thread = at::full_like(threads, NAN);
  const int before = at::get_num_threads();
  at::set_num_threads(4);
  tiles::product(threads, a, b);
  at::set_num_threads(1);
  tiles::product(one_thread, a, b);
  at::set_num_threads(before);
  EXPECT_BITS_EQUAL(threads, one_thread);
  EXPECT_LT(tile_distance(threads, a.to(at::kDouble).mm(b.to(at::kDouble))), bound());
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

#if FARSKIP_VECTORS

/// a [M, K] b [K, N <= 64] by one kind of vectors.
template <typename T>
at::Tensor by(void (*kernel)(const tiles::Left&, const tiles::Panel&, T*, int64_t, bool), const at::Tensor& a,
              const at::Tensor& b) {
  const at::Tensor out = at::full({a.size(0), b.size(1)}, NAN, a.options());
  std::vector<uint32_t> storage, words(tiles::panel_words<T>(b.size(0)));
  const auto matrix = [](const at::Tensor& x) {
    return tiles::Matrix<T>{x.const_data_ptr<T>(), x.size(0), x.size(1), x.stride(0), x.stride(1)};
  };
  kernel(tiles::left(matrix(a), storage), tiles::pack(matrix(b), 0, words.data()), out.data_ptr<T>(), out.size(1),
         false);
  return out;
}

/// Of both kinds where the processor has both: a wider one leaves the narrower untested elsewhere.
TEST(TileKernels, Avx2AndAvx512) {
  if (!tiles::supported(at::kFloat)) GTEST_SKIP() << "this processor lacks the instructions";
  const bool both = vectors_for(at::kFloat) == Vectors::avx512;
  for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 14}) {
    for (const int64_t n : {1, 16, 20, 40, 63, 64}) {
      for (const int64_t k : {1, 17, 40, 601}) {
        const at::Tensor a = random({m, k}, 14).to(at::kFloat), b = random({k, n}, 15).to(at::kFloat);
        const at::Tensor narrow = by<float>(tiles::avx2::multiply<float, float>, a, b);
        ASSERT_LT(tile_distance(narrow, a.to(at::kDouble).mm(b.to(at::kDouble))), 2e-6)
            << m << " x " << k << " x " << n;
        if (both) {
          EXPECT_BITS_EQUAL(by<float>(tiles::avx512::multiply<float, float>, a, b), narrow);
        }
        const at::Tensor a2 = a.to(at::kBFloat16), b2 = b.to(at::kBFloat16);
        const at::Tensor pairs = by<at::BFloat16>(tiles::avx2::multiply<at::BFloat16, at::BFloat16>, a2, b2);
        ASSERT_LT(tile_distance(pairs, a2.to(at::kDouble).mm(b2.to(at::kDouble))), 4e-3);
      }
    }
  }
}

#endif

TEST(TileTypes, OthersGoToTheLibrary) {
  EXPECT_FALSE(tiles::supported(at::kDouble));
  const at::Tensor a = random({5, 6}, 1), b = random({6, 7}, 2), out = at::empty({5, 7}, a.options());
  tiles::product(out, a, b);
  EXPECT_BITS_EQUAL(out, a.mm(b));
}

}  // namespace
}  // namespace farskip::nn
