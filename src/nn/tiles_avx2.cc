// Tiles with 256-bit vectors: what AVX2 has instead of masks and 32 registers.

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <vector>

#include "nn/avx2.h"
#include "nn/tile_kernels.h"

#if FARSKIP_VECTORS

namespace farskip::nn::tiles::avx2 {
namespace {

/// Elements `half` of words: of bf16 the lower or the higher half, of fp32 there is one.
template <typename T, int half>
FARSKIP_AVX2 inline __m256 elements(__m256i words) {
  if constexpr (std::is_same_v<T, float>) return _mm256_castsi256_ps(words);
  return half == 0 ? nn::avx2::low_half(words) : nn::avx2::high_half(words);
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

/// The columns of a block: word (k, n) at words[k * stride + n].
struct Columns {
  const uint32_t* words;
  int64_t stride;
};
struct Sums {
  float* data;
  int64_t stride;
  bool more;  ///< to be added to
  Sums at(int64_t row, int64_t column) const { return {data + row * stride + column, stride, more}; }
};

/// R rows times 16 C columns: 2 R C sums, 2 C factors and a word fit into 16 registers.
template <typename T, int R, int C>
FARSKIP_AVX2 void block(const Left& a, Columns b, Ahead ahead, Sums sums) {
  constexpr int num = 2 * C;
  __m256 acc[R][num];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < num; ++c)
      acc[r][c] = sums.more ? _mm256_loadu_ps(sums.data + r * sums.stride + 8 * c) : _mm256_setzero_ps();
  }
  const uint32_t* word = a.words;
  for (int64_t k = 0; k < a.depth; ++k, word += a.depth_stride, b.words += b.stride, ahead.bytes += ahead.step) {
    _mm_prefetch(ahead.bytes, _MM_HINT_T1);
    add_products<T, 0>(acc, word, a.row_stride, b.words);
    if constexpr (!std::is_same_v<T, float>) add_products<T, 1>(acc, word, a.row_stride, b.words);
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < num; ++c) _mm256_storeu_ps(sums.data + r * sums.stride + 8 * c, acc[r][c]);
  }
}

constexpr int64_t max_rows = 6;

/// All rows times 16 columns.
template <typename T>
void multiply_columns(const Left& a, Columns b, Ahead& ahead, Sums sums) {
  static constexpr decltype(&block<T, 1, 1>) blocks[] = {block<T, 1, 1>, block<T, 2, 1>, block<T, 3, 1>,
                                                         block<T, 4, 1>, block<T, 5, 1>, block<T, 6, 1>};
  for (int64_t m = 0; m < a.rows; m += max_rows, ahead.bytes += ahead.step * a.depth)
    blocks[std::min(max_rows, a.rows - m) - 1](a.rows_from(m), b, ahead, sums.at(m, 0));
}

/// Few rows read the panel where it lies: one or two more of its columns at a time.
template <typename T>
void multiply_few(const Left& a, const Panel& b, Sums sums) {
  const Columns all{b.words, b.width};
  if (a.rows == 1 && b.width == 64) return block<T, 1, 4>(a, all, Ahead::of(b, 1), sums);
  int64_t n = 0;
  Ahead ahead = Ahead::of(b, (a.rows + max_rows - 1) / max_rows * (b.width / 16));
  for (; a.rows == 2 && n + 32 <= b.width; n += 32, ahead.bytes += ahead.step * a.depth)
    block<T, 2, 2>(a, {b.words + n, b.width}, ahead, sums.at(0, n));
  for (; n < b.width; n += 16) multiply_columns<T>(a, {b.words + n, b.width}, ahead, sums.at(0, n));
}

/// `num` words as numbers: the lower halves to `low`, the higher ones to `high`.
FARSKIP_AVX2 void split(const uint32_t* words, int64_t num, float* low, float* high) {
  int64_t i = 0;
  for (; i + 8 <= num; i += 8) {
    const __m256i eight = load(words + i);
    _mm256_storeu_ps(low + i, elements<at::BFloat16, 0>(eight));
    _mm256_storeu_ps(high + i, elements<at::BFloat16, 1>(eight));
  }
  for (; i < num; ++i) {
    low[i] = std::bit_cast<float>(words[i] << 16);
    high[i] = std::bit_cast<float>(words[i] & 0xFFFF0000U);
  }
}

/// The same, one half behind the other.
FARSKIP_AVX2 void widen(const uint32_t* words, int64_t num, float* out) {
  int64_t i = 0;
  for (; i + 8 <= num; i += 8) {
    const __m256i eight = load(words + i);
    const __m256 low = elements<at::BFloat16, 0>(eight), high = elements<at::BFloat16, 1>(eight);
    const __m256 first = _mm256_unpacklo_ps(low, high), second = _mm256_unpackhi_ps(low, high);
    _mm256_storeu_ps(out + 2 * i, _mm256_permute2f128_ps(first, second, 0x20));
    _mm256_storeu_ps(out + 2 * i + 8, _mm256_permute2f128_ps(first, second, 0x31));
  }
  for (; i < num; ++i) {
    out[2 * i] = std::bit_cast<float>(words[i] << 16);
    out[2 * i + 1] = std::bit_cast<float>(words[i] & 0xFFFF0000U);
  }
}

/// Words [k, k + depth) of each row as numbers, of bf16 twice as many, close together: rows of which the inner index is
/// dense stay as they are in fp32.
template <typename T>
Left numbers(const Left& a, int64_t k, int64_t depth, std::vector<float>& to) {
  constexpr int64_t per_word = 4 / sizeof(T);
  const uint32_t* words = a.words + k * a.depth_stride;
  const bool dense_inner = a.depth_stride == 1;
  if (per_word == 1 && dense_inner) return {words, a.rows, depth, a.row_stride, 1};
  to.resize(per_word * depth * a.rows);
  for (int64_t r = 0; dense_inner && r < a.rows; ++r) widen(words + r * a.row_stride, depth, to.data() + 2 * depth * r);
  for (int64_t i = 0; !dense_inner && i < depth; ++i) {
    float* out = to.data() + per_word * a.rows * i;
    if constexpr (per_word == 1) {
      std::memcpy(out, words + i * a.depth_stride, a.rows * sizeof(float));
    } else {
      split(words + i * a.depth_stride, a.rows, out, out + a.rows);
    }
  }
  return {reinterpret_cast<const uint32_t*>(to.data()), a.rows, per_word * depth, dense_inner ? per_word * depth : 1,
          dense_inner ? 1 : a.rows};
}

/// Words [k, k + depth) of 16 columns from n on as twice as many numbers.
void widen_columns(const Panel& b, int64_t k, int64_t depth, int64_t n, float* to) {
  for (int64_t i = k; i < k + depth; ++i, to += 32) split(b.words + i * b.width + n, 16, to, to + 16);
}

constexpr int64_t rows_at_once = 96;
constexpr int64_t depth_at_once = 256;  // of fp32: 16 KiB of 16 columns, which all blocks of rows find in the cache

/// Many rows: a part of the inner index at a time, bf16 widened before.
template <typename T>
void multiply_many(const Left& a, const Panel& b, Sums sums) {
  constexpr bool wide = std::is_same_v<T, float>;
  constexpr int64_t step = depth_at_once * static_cast<int64_t>(sizeof(T)) / 4;
  thread_local std::vector<float> left;
  float columns[wide ? 1 : 16 * depth_at_once];
  for (int64_t k = 0; k < a.depth; k += step) {
    const int64_t depth = std::min(step, a.depth - k);
    const Left part = numbers<T>(a, k, depth, left);
    const uint32_t* next = k + step < a.depth ? b.words + (k + step) * b.width : b.next;
    Ahead ahead =
        Ahead::of({b.words, b.cols, b.width, part.depth, next}, (a.rows + max_rows - 1) / max_rows * (b.width / 16));
    sums.more = k > 0;
    for (int64_t n = 0; n < b.width; n += 16) {
      Columns part_columns{b.words + k * b.width + n, b.width};
      if constexpr (!wide) {
        widen_columns(b, k, depth, n, columns);
        part_columns = {reinterpret_cast<const uint32_t*>(columns), 16};
      }
      multiply_columns<float>(part, part_columns, ahead, sums.at(0, n));
    }
  }
}

template <typename Out>
FARSKIP_AVX2 void write(const float* sums, int64_t num, Out* to, bool add) {
  if (add) {
    for (int64_t n = 0; n < num; ++n) to[n] = static_cast<Out>(static_cast<float>(to[n]) + sums[n]);
  } else {
    for (int64_t n = 0; n < num; ++n) to[n] = static_cast<Out>(sums[n]);
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
    const bool few = part.rows <= 2 * max_rows || a.depth == 0;
    auto* const product = few ? multiply_few<T> : multiply_many<T>;
    Out* to = out + first * row_stride;
    if constexpr (std::is_same_v<Out, float>) {
      if (!add && b.cols == b.width && a.depth <= depth_at_once) {  // written once, where it belongs
        product(part, b, {to, row_stride, false});
        continue;
      }
    }
    product(part, b, {sums, b.width, false});
    for (int64_t r = 0; r < part.rows; ++r) write(sums + r * b.width, b.cols, to + r * row_stride, add);
  }
}

template void multiply<float, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, at::BFloat16>(const Left&, const Panel&, at::BFloat16*, int64_t, bool);

}  // namespace farskip::nn::tiles::avx2

#endif
