// WideRows times rows of a quantised weight with 256-bit vectors: up to 3 rows of x and 4 rows of the weight, each sum
// in 16 lanes of two vectors. Elements are decoded in registers as fp32; where there are more rows of x, once, into a
// buffer. bf16 rows of x are widened first.

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "nn/avx2.h"
#include "nn/for_machine.h"
#include "nn/row_products.h"

#if FARSKIP_VECTORS

namespace farskip::nn {
namespace {

constexpr int64_t most_rows = 3;  // with 2 columns 12 sums

/// 32 neighbours.
struct Stretch {
  __m256 part[4];
};

/// Stretch i of a row; of int8 without its scale, of int4 rounded to T.
template <WeightFormat format, typename T>
FARSKIP_AVX2 inline Stretch load(const std::byte* row, int64_t i) {
  Stretch stretch;
  if constexpr (format == WeightFormat::fp32) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) stretch.part[j] = _mm256_loadu_ps(reinterpret_cast<const float*>(row) + 32 * i + 8 * j);
  } else if constexpr (format == WeightFormat::int8) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m128i q = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + 32 * i + 8 * j));
      stretch.part[j] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
    }
  } else {
    const Int4Block& block = reinterpret_cast<const Int4Block*>(row)[i];
    int pair;
    std::memcpy(&pair, &block, sizeof(pair));
    const __m256i both = _mm256_set1_epi32(pair);
    const __m256 scale = avx2::low_half(both), minimum = avx2::high_half(both);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      int eight;
      std::memcpy(&eight, block.q + 4 * j, sizeof(eight));
      const __m256i q =
          _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(eight), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)),
                           _mm256_set1_epi32(15));
      const __m256 value = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(q), minimum);
      stretch.part[j] = std::is_same_v<T, float> ? value : avx2::rounded_to_bf16(value);
    }
  }
  return stretch;
}

/// The sum over 16 lanes by halves: 8, 4, 2 and 1.
FARSKIP_AVX2 inline float sum_of(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/// p with x [num_x, K] in fp32, and its weight or what was decoded of it.
template <typename T>
struct WideRows {
  const RowProduct<T>& p;
  const float* x;
  int64_t x_stride;
  const std::byte* w;
  int64_t w_stride;
};

/// R rows of x from m on times C rows of the weight from n on.
template <WeightFormat format, typename T, int R, int C>
FARSKIP_AVX2 void block(const WideRows<T>& rows, int64_t m, int64_t n) {
  const RowProduct<T>& p = rows.p;
  const float* x = rows.x + m * rows.x_stride;
  const std::byte* w = rows.w + n * rows.w_stride;
  const std::byte* next = w + C * rows.w_stride;
  __m256 sum[R][C][2];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c][0] = sum[r][c][1] = _mm256_setzero_ps();
  const int64_t whole = p.depth / 32, rest = p.depth % 32, line = C * rows.w_stride / std::max<int64_t>(1, whole);
  for (int64_t i = 0; i < whole; ++i) {
    for (int64_t byte = 0; byte < line; byte += 64) _mm_prefetch(next + i * line + byte, _MM_HINT_T0);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const Stretch factor = load<format, T>(w + c * rows.w_stride, i);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const float* from = x + r * rows.x_stride + 32 * i;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
          sum[r][c][j % 2] = _mm256_fmadd_ps(_mm256_loadu_ps(from + 8 * j), factor.part[j], sum[r][c][j % 2]);
      }
    }
  }
  if (rest > 0) {
    for (int r = 0; r < R; ++r) {
      float last[32] = {};
      std::copy_n(x + r * rows.x_stride + 32 * whole, rest, last);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const Stretch factor = load<format, T>(w + c * rows.w_stride, whole);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
          sum[r][c][j % 2] = _mm256_fmadd_ps(_mm256_loadu_ps(last + 8 * j), factor.part[j], sum[r][c][j % 2]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) {
      const float scale = p.scales == nullptr ? 1.0F : p.scales[n + c];
      const float bias = p.bias == nullptr ? 0.0F : static_cast<float>(p.bias[n + c]);
      const __m128 value =
          _mm_fmadd_ss(_mm_set_ss(sum_of(sum[r][c][0], sum[r][c][1])), _mm_set_ss(scale), _mm_set_ss(bias));
      p.out[(m + r) * p.out_stride + n + c] = static_cast<T>(_mm_cvtss_f32(value));
    }
  }
}

template <WeightFormat format, typename T, int R, int C>
void sweep(const WideRows<T>& rows, int64_t m) {
  int64_t n = 0;
  for (; n + C <= rows.p.num_w; n += C) block<format, T, R, C>(rows, m, n);
  for (; n < rows.p.num_w; ++n) block<format, T, R, 1>(rows, m, n);
}

template <WeightFormat format, typename T>
void multiply(const WideRows<T>& rows) {
  int64_t m = 0;
  for (; m + most_rows <= rows.p.num_x; m += most_rows) sweep<format, T, most_rows, 2>(rows, m);
  if (rows.p.num_x - m == 2) sweep<format, T, 2, 2>(rows, m);
  if (rows.p.num_x - m == 1) sweep<format, T, 1, 4>(rows, m);
}

template <WeightFormat format, typename Rounded, typename Out>
FARSKIP_AVX2 void decode_rows(const std::byte* w, int64_t w_stride, int64_t num_w, int64_t depth, Out* out,
                              int64_t stride) {
  for (int64_t n = 0; n < num_w; ++n) {
    for (int64_t i = 0; i * 32 < depth; ++i) {
      const Stretch stretch = load<format, Rounded>(w + n * w_stride, i);
      float values[32];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) _mm256_storeu_ps(values + 8 * j, stretch.part[j]);
      for (int j = 0; j < 32; ++j) out[n * stride + 32 * i + j] = static_cast<Out>(values[j]);
    }
  }
}

template <WeightFormat format, typename T>
void product_of(const RowProduct<T>& p) {
  WideRows<T> rows{p, nullptr, p.x_stride, p.w, p.w_stride};
  std::unique_ptr<float[]> widened, decoded;
  if constexpr (std::is_same_v<T, float>) {
    rows.x = p.x;
  } else {
    widened = std::make_unique_for_overwrite<float[]>(p.num_x * p.depth);
    for_machine(0, p.num_x, [&p, to = widened.get()](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t m = begin; m < end; ++m)
        for (int64_t k = 0; k < p.depth; ++k) to[m * p.depth + k] = static_cast<float>(p.x[m * p.x_stride + k]);
    });
    rows.x = widened.get();
    rows.x_stride = p.depth;
  }
  if (p.num_x <= most_rows) return multiply<format>(rows);
  const int64_t stride = (p.depth + 31) / 32 * 32;
  decoded = std::make_unique_for_overwrite<float[]>(p.num_w * stride);
  decode_rows<format, T>(p.w, p.w_stride, p.num_w, p.depth, decoded.get(), stride);
  rows.w = reinterpret_cast<const std::byte*>(decoded.get());
  rows.w_stride = stride * static_cast<int64_t>(sizeof(float));
  multiply<WeightFormat::fp32>(rows);
}

}  // namespace

template <typename T>
void avx2_product(const RowProduct<T>& p) {
  if (p.format == WeightFormat::int8) return product_of<WeightFormat::int8>(p);
  product_of<WeightFormat::int4>(p);
}

template <typename T>
void avx2_decode(const RowProduct<T>& p, T* out, int64_t stride) {
  if (p.format == WeightFormat::int8)
    return decode_rows<WeightFormat::int8, T>(p.w, p.w_stride, p.num_w, p.depth, out, stride);
  decode_rows<WeightFormat::int4, T>(p.w, p.w_stride, p.num_w, p.depth, out, stride);
}

template void avx2_decode<float>(const RowProduct<float>&, float*, int64_t);
template void avx2_decode<at::BFloat16>(const RowProduct<at::BFloat16>&, at::BFloat16*, int64_t);
template void avx2_product<float>(const RowProduct<float>&);
template void avx2_product<at::BFloat16>(const RowProduct<at::BFloat16>&);

}  // namespace farskip::nn

#endif
