// Tiles with 256-bit vectors: what AVX2 has instead of masks and 32 registers.

#include <algorithm>
#include <bit>
#include <type_traits>
#include <vector>

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

/// sums [R, 16 C] of R rows times 16 C columns, or with `more` what they were and that. `column`: words of the columns
/// in a panel `width` wide, as is a row of sums.
template <typename T, int R, int C>
FARSKIP_AVX2 void block(const Left& a, const uint32_t* column, int64_t width, Ahead ahead, float* sums, bool more) {
  constexpr int num = 2 * C;
  __m256 acc[R][num];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < num; ++c) acc[r][c] = more ? _mm256_loadu_ps(sums + r * width + 8 * c) : _mm256_setzero_ps();
  const uint32_t* word = a.words;
  for (int64_t k = 0; k < a.depth; ++k, word += a.depth_stride, column += width, ahead.bytes += ahead.step) {
    _mm_prefetch(ahead.bytes, _MM_HINT_T1);
    add_products<T, 0>(acc, word, a.row_stride, column);
    if constexpr (!std::is_same_v<T, float>) add_products<T, 1>(acc, word, a.row_stride, column);
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < num; ++c) _mm256_storeu_ps(sums + r * width + 8 * c, acc[r][c]);
}

/// R rows times the whole panel, 16 C columns at a time: 2 R C sums, 2 C factors and a word fit into 16 registers.
template <typename T, int R, int C>
void sweep(const Left& a, const Panel& b, Ahead& ahead, float* sums, bool more) {
  int64_t n = 0;
  for (; n + 16 * C <= b.width; n += 16 * C, ahead.bytes += ahead.step * a.depth)
    block<T, R, C>(a, b.words + n, b.width, ahead, sums + n, more);
  if constexpr (C > 1) {
    for (; n < b.width; n += 16, ahead.bytes += ahead.step * a.depth)
      block<T, R, 1>(a, b.words + n, b.width, ahead, sums + n, more);
  }
}

constexpr int64_t max_rows = 6;

template <typename T>
void multiply_rows(const Left& a, const Panel& b, float* sums, bool more) {
  const int64_t groups = b.width / 16, rest = a.rows % max_rows;
  Ahead ahead = Ahead::of(b, a.rows / max_rows * groups + (rest == 0 ? 0 : rest == 1 ? 1 : groups));
  int64_t m = 0;
  for (; m + max_rows <= a.rows; m += max_rows)
    sweep<T, max_rows, 1>(a.rows_from(m), b, ahead, sums + m * b.width, more);
  const Left last = a.rows_from(m);
  sums += m * b.width;
  switch (rest) {
    case 1:
      return groups == 4 ? sweep<T, 1, 4>(last, b, ahead, sums, more) : sweep<T, 1, 1>(last, b, ahead, sums, more);
    case 2:
      return sweep<T, 2, 2>(last, b, ahead, sums, more);
    case 3:
      return sweep<T, 3, 1>(last, b, ahead, sums, more);
    case 4:
      return sweep<T, 4, 1>(last, b, ahead, sums, more);
    case 5:
      return sweep<T, 5, 1>(last, b, ahead, sums, more);
  }
}

/// Operands in fp32, a part of the inner index at a time.
struct WidenedPart {
  std::vector<float> left, panel;
};

/// Words [k, k + depth) of each row as twice as many numbers.
FARSKIP_AVX2 Left widen(const Left& a, int64_t k, int64_t depth, std::vector<float>& to) {
  to.resize(2 * depth * a.rows);
  const uint32_t* words = a.words + k * a.depth_stride;
  for (int64_t r = 0; r < a.rows; ++r) {
    const uint32_t* row = words + r * a.row_stride;
    float* out = to.data() + 2 * depth * r;
    int64_t i = 0;
    for (; a.depth_stride == 1 && i + 8 <= depth; i += 8) {
      const __m256i eight = load(row + i);
      const __m256 low = elements<at::BFloat16, 0>(eight), high = elements<at::BFloat16, 1>(eight);
      const __m256 first = _mm256_unpacklo_ps(low, high), second = _mm256_unpackhi_ps(low, high);
      _mm256_storeu_ps(out + 2 * i, _mm256_permute2f128_ps(first, second, 0x20));
      _mm256_storeu_ps(out + 2 * i + 8, _mm256_permute2f128_ps(first, second, 0x31));
    }
    for (; i < depth; ++i) {
      const uint32_t pair = row[i * a.depth_stride];
      out[2 * i] = std::bit_cast<float>(pair << 16);
      out[2 * i + 1] = std::bit_cast<float>(pair & 0xFFFF0000U);
    }
  }
  return {reinterpret_cast<const uint32_t*>(to.data()), a.rows, 2 * depth, 2 * depth, 1};
}

FARSKIP_AVX2 Panel widen(const Panel& b, int64_t k, int64_t depth, std::vector<float>& to) {
  to.resize(2 * depth * b.width);
  const uint32_t* words = b.words + k * b.width;
  for (int64_t i = 0; i < depth; ++i) {
    float* out = to.data() + 2 * i * b.width;
    for (int64_t n = 0; n < b.width; n += 8) {
      const __m256i eight = load(words + i * b.width + n);
      _mm256_storeu_ps(out + n, elements<at::BFloat16, 0>(eight));
      _mm256_storeu_ps(out + b.width + n, elements<at::BFloat16, 1>(eight));
    }
  }
  return {reinterpret_cast<const uint32_t*>(to.data()), b.cols, b.width, 2 * depth};
}

constexpr int64_t rows_at_once = 96;
constexpr int64_t depth_at_once = 256;  // of fp32: 64 KiB of a panel, which every block of rows reads again

/// sums [rows, width]. Many rows read their operands part by part, so that a part of the panel stays in the cache, and
/// of bf16 each is widened once. REQUIRES: at most rows_at_once rows.
template <typename T>
void multiply_part(const Left& a, const Panel& b, float* sums) {
  constexpr int64_t step = depth_at_once * static_cast<int64_t>(sizeof(T)) / 4;
  const bool few = a.rows <= 2 * max_rows, fits = std::is_same_v<T, float> && a.depth <= 2 * step;
  if (few || fits || a.depth == 0) return multiply_rows<T>(a, b, sums, false);
  thread_local WidenedPart part;
  for (int64_t k = 0; k < a.depth; k += step) {
    const int64_t depth = std::min(step, a.depth - k);
    const uint32_t* next = k + step < a.depth ? b.words + (k + step) * b.width : b.next;
    if constexpr (std::is_same_v<T, float>) {
      const Left left{a.words + k * a.depth_stride, a.rows, depth, a.row_stride, a.depth_stride};
      multiply_rows<float>(left, {b.words + k * b.width, b.cols, b.width, depth, next}, sums, k > 0);
    } else {
      Panel panel = widen(b, k, depth, part.panel);
      panel.next = next;
      multiply_rows<float>(widen(a, k, depth, part.left), panel, sums, k > 0);
    }
  }
}

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
  float sums[rows_at_once * panel_cols];
  for (int64_t first = 0; first < a.rows; first += rows_at_once) {
    Left part = a.rows_from(first);
    part.rows = std::min(part.rows, rows_at_once);
    multiply_part<T>(part, b, sums);
    for (int64_t r = 0; r < part.rows; ++r) {
      const float* row = sums + r * b.width;
      Out* to = out + (first + r) * row_stride;
      for (int64_t n = 0; n < b.cols; ++n) to[n] = static_cast<Out>(add ? static_cast<float>(to[n]) + row[n] : row[n]);
    }
  }
}

template void multiply<float, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, at::BFloat16>(const Left&, const Panel&, at::BFloat16*, int64_t, bool);

}  // namespace farskip::nn::tiles::avx2

#endif
