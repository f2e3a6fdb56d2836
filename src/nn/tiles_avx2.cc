// Tiles with 256-bit vectors: what AVX2 has instead of masks and 32 registers.

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "nn/tile_kernels.h"

#if FARSKIP_VECTORS

namespace farskip::nn::tiles::avx2 {
namespace {

/// Elements `half` of words: of bf16 the lower or the higher half, of fp32 there is one.
template <typename T, int half>
FARSKIP_AVX2 inline __m256 elements(__m256i words) {
  if constexpr (std::is_same_v<T, float>) return _mm256_castsi256_ps(words);
  if constexpr (half == 0) return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
  return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
}
FARSKIP_AVX2 inline __m256i load(const uint32_t* words) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}

/// out [num] = sums, or += with `add`.
template <typename Out>
FARSKIP_AVX2 void put(Out* out, int64_t num, const float* sums, bool add) {
  for (int64_t n = 0; n < num; ++n) {
    if constexpr (std::is_same_v<Out, float>) {
      out[n] = add ? out[n] + sums[n] : sums[n];
    } else {
      out[n] = static_cast<Out>(sums[n]);
    }
  }
}

/// sums += elements `half` of R words of the left operand times those of 8 N words of the right one.
template <typename T, int half, int R, int N>
FARSKIP_AVX2 inline void add_products(__m256 (&sums)[R][N], const uint32_t* word, int64_t row_stride,
                                      const uint32_t* column) {
  __m256 factor[N];
#pragma GCC unroll 8
  for (int c = 0; c < N; ++c) factor[c] = elements<T, half>(load(column + 8 * c));
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const __m256 x = elements<T, half>(_mm256_set1_epi32(static_cast<int>(word[r * row_stride])));
#pragma GCC unroll 8
    for (int c = 0; c < N; ++c) sums[r][c] = _mm256_fmadd_ps(x, factor[c], sums[r][c]);
  }
}

/// R rows times 16 C columns, of which `cols` are wanted; `column`: their words in a panel `width` wide.
template <typename T, typename Out, int R, int C>
FARSKIP_AVX2 void block(const Left& a, const uint32_t* column, int64_t width, int64_t cols, Ahead ahead, Out* out,
                        int64_t row_stride, bool add) {
  constexpr int num = 2 * C;
  __m256 acc[R][num];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < num; ++c) acc[r][c] = _mm256_setzero_ps();
  const uint32_t* word = a.words;
  for (int64_t k = 0; k < a.depth; ++k, word += a.depth_stride, column += width, ahead.bytes += ahead.step) {
    _mm_prefetch(ahead.bytes, _MM_HINT_T1);
    add_products<T, 0>(acc, word, a.row_stride, column);
    if constexpr (!std::is_same_v<T, float>) add_products<T, 1>(acc, word, a.row_stride, column);
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    float sums[16 * C];
#pragma GCC unroll 8
    for (int c = 0; c < num; ++c) _mm256_storeu_ps(sums + 8 * c, acc[r][c]);
    put(out + r * row_stride, cols, sums, add);
  }
}

/// R rows times the whole panel, 16 C columns at a time: 2 R C sums, 2 C factors and a word fit into 16 registers.
template <typename T, typename Out, int R, int C>
void sweep(const Left& a, const Panel& b, Ahead& ahead, Out* out, int64_t row_stride, bool add) {
  int64_t n = 0;
  for (; n + 16 * C <= b.width; n += 16 * C, ahead.bytes += ahead.step * a.depth)
    block<T, Out, R, C>(a, b.words + n, b.width, std::min<int64_t>(16 * C, b.cols - n), ahead, out + n, row_stride, add);
  if constexpr (C > 1) {
    for (; n < b.width; n += 16, ahead.bytes += ahead.step * a.depth)
      block<T, Out, R, 1>(a, b.words + n, b.width, std::min<int64_t>(16, b.cols - n), ahead, out + n, row_stride, add);
  }
}

constexpr int64_t max_rows = 6;

/// y = x transposed, both 8 x 8 words.
FARSKIP_AVX2 inline void transpose(__m256 (&x)[8], __m256 (&y)[8]) {
#pragma GCC unroll 4
  for (int r = 0; r < 8; r += 2) {
    y[r] = _mm256_unpacklo_ps(x[r], x[r + 1]);
    y[r + 1] = _mm256_unpackhi_ps(x[r], x[r + 1]);
  }
#pragma GCC unroll 2
  for (int r = 0; r < 8; r += 4) {
    x[r] = _mm256_shuffle_ps(y[r], y[r + 2], 0x44);
    x[r + 1] = _mm256_shuffle_ps(y[r], y[r + 2], 0xEE);
    x[r + 2] = _mm256_shuffle_ps(y[r + 1], y[r + 3], 0x44);
    x[r + 3] = _mm256_shuffle_ps(y[r + 1], y[r + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm256_permute2f128_ps(x[i], x[4 + i], 0x20);
    y[4 + i] = _mm256_permute2f128_ps(x[i], x[4 + i], 0x31);
  }
}

}  // namespace

FARSKIP_AVX2 void transpose(const char* in, int64_t stride, int64_t rows, int64_t cols, uint32_t* out, int64_t width) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int64_t c = 0; c < cols; c += 8) {
    const int64_t num_cols = std::min<int64_t>(8, cols - c);
    const __m256i wanted = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(num_cols)), lanes);
    for (int64_t r = 0; r < 16; r += 8) {
      const char* from = in + r * stride + 4 * c;
      __m256 x[8], y[8];
      if (r + 8 <= rows && num_cols == 8) {  // most of them
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) x[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + i * stride));
      } else {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          x[i] = r + i < rows ? _mm256_maskload_ps(reinterpret_cast<const float*>(from + i * stride), wanted)
                              : _mm256_setzero_ps();
        }
      }
      transpose(x, y);
      float* to = reinterpret_cast<float*>(out + c * width + r);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        if (i < num_cols) _mm256_storeu_ps(to + i * width, y[i]);
    }
  }
}

template <typename T, typename Out>
void multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add) {
  const int64_t groups = b.width / 16, rest = a.rows % max_rows;
  Ahead ahead = Ahead::of(b, a.rows / max_rows * groups + (rest == 0 ? 0 : rest == 1 ? 1 : groups));
  int64_t m = 0;
  for (; m + max_rows <= a.rows; m += max_rows)
    sweep<T, Out, max_rows, 1>(a.rows_from(m), b, ahead, out + m * row_stride, row_stride, add);
  const Left last = a.rows_from(m);
  out += m * row_stride;
  switch (rest) {
    case 1:
      return groups == 4 ? sweep<T, Out, 1, 4>(last, b, ahead, out, row_stride, add)
                         : sweep<T, Out, 1, 1>(last, b, ahead, out, row_stride, add);
    case 2:
      return sweep<T, Out, 2, 2>(last, b, ahead, out, row_stride, add);
    case 3:
      return sweep<T, Out, 3, 1>(last, b, ahead, out, row_stride, add);
    case 4:
      return sweep<T, Out, 4, 1>(last, b, ahead, out, row_stride, add);
    case 5:
      return sweep<T, Out, 5, 1>(last, b, ahead, out, row_stride, add);
  }
}

template void multiply<float, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, at::BFloat16>(const Left&, const Panel&, at::BFloat16*, int64_t, bool);

}  // namespace farskip::nn::tiles::avx2

#endif
