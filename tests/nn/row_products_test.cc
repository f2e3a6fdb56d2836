#include "nn/row_products.h"

#include "check_function.h"
#include "nn/processor.h"

namespace farskip::nn {
namespace {

#if FARSKIP_VECTORS

/// Quantised rows times x by one kind of vectors, with a bias.
template <typename T>
at::Tensor by(void (*kernel)(const RowProduct<T>&), const at::Tensor& x, WeightFormat format,
              const at::Tensor& weight) {
  const int64_t num_w = weight.size(0), depth = weight.size(1), bytes = row_bytes(format, depth);
  std::vector<std::byte> rows(num_w * bytes);
  quantize(weight, format, rows.data());
  const at::Tensor out = at::full({x.size(0), num_w}, NAN, x.options()), bias = at::arange(num_w, x.options());
  std::vector<float> scales;
  for (int64_t n = 0; format == WeightFormat::int8 && n < num_w; ++n)
    scales.push_back(scale_of_row(rows.data() + n * bytes, depth));
  kernel({.x = x.const_data_ptr<T>(),
          .x_stride = x.stride(0),
          .num_x = x.size(0),
          .w = rows.data(),
          .w_stride = bytes,
          .format = format,
          .num_w = num_w,
          .depth = depth,
          .bias = bias.const_data_ptr<T>(),
          .out = out.data_ptr<T>(),
          .out_stride = num_w,
          .scales = scales.empty() ? nullptr : scales.data()});
  return out;
}

/// Of both kinds where the processor has both: a wider one leaves the narrower untested elsewhere. In fp32 an element's
/// products, and the order they are added in, are the same.
TEST(RowProducts, Avx2AndAvx512) {
  if (vectors_for(at::kFloat) == Vectors::none) GTEST_SKIP() << "this processor lacks the instructions";
  const bool both = vectors_for(at::kFloat) == Vectors::avx512;
  for (const auto format : {WeightFormat::int8, WeightFormat::int4}) {
    for (const int64_t m : {1, 2, 3, 4, 5, 11}) {
      for (const int64_t n : {1, 4, 7, 30}) {
        for (const int64_t k : {1, 31, 64, 150}) {
          const at::Tensor x = random({m, k}, 1).to(at::kFloat), weight = random({n, k}, 2, 0.05).to(at::kFloat);
          const at::Tensor portable = by<float>(portable_product<float>, x, format, weight);
          const at::Tensor narrow = by<float>(avx2_product<float>, x, format, weight);
          ASSERT_TRUE(at::allclose(narrow, portable, 1e-5, 1e-5)) << m << " x " << k << " x " << n;
          if (both) {
            EXPECT_BITS_EQUAL(by<float>(avx512_product<float>, x, format, weight), narrow);
          }
          const at::Tensor pairs = x.to(at::kBFloat16);
          ASSERT_TRUE(at::allclose(by<at::BFloat16>(avx2_product<at::BFloat16>, pairs, format, weight),
                                   by<at::BFloat16>(portable_product<at::BFloat16>, pairs, format, weight), 1e-2,
                                   1e-2));
        }
      }
    }
  }
}

#endif

}  // namespace
}  // namespace farskip::nn
