// Tiles with 512-bit vectors.

#include <algorithm>
#include <type_traits>

#include "nn/tile_kernels.h"

#if FARSKIP_VECTORS

namespace farskip::nn::tiles::avx512 {
namespace {

constexpr int64_t max_rows = 6;  // 6 x 4 sums, 4 vectors of the panel and a factor fit into 32 registers

/// acc + a b: a word of the left operand times 16 of the right one.
template <typename T>
FARSKIP_AVX512 inline __m512 fused(__m512 acc, uint32_t a, __m512i b) {
  if constexpr (std::is_same_v<T, float>) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(a))), _mm512_castsi512_ps(b), acc);
  } else {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a))),
                            reinterpret_cast<__m512bh>(b));
  }
}

template <typename Out>
FARSKIP_AVX512 inline void put(Out* out, __mmask16 mask, __m512 value, bool add) {
  if constexpr (std::is_same_v<Out, float>) {
    if (add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), value);
    _mm512_mask_storeu_ps(out, mask, value);
  } else {
    _mm256_mask_storeu_epi16(out, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }
}

/// R rows times 16 C columns.
template <typename T, typename Out, int R, int C>
FARSKIP_AVX512 void block(const Left& a, const Panel& b, Ahead ahead, Out* out, int64_t row_stride, bool add) {
  __m512 acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = _mm512_setzero_ps();
  const uint32_t *word = a.words, *column = b.words;
  for (int64_t k = 0; k < a.depth; ++k, word += a.depth_stride, column += 16 * C, ahead.bytes += ahead.step) {
    _mm_prefetch(ahead.bytes, _MM_HINT_T1);
    __m512i factor[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) factor[c] = _mm512_loadu_si512(column + 16 * c);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[r][c] = fused<T>(acc[r][c], word[r * a.row_stride], factor[c]);
    }
  }
  const auto last = static_cast<__mmask16>(0xFFFFU >> (16 * C - b.cols));
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c)
      put(out + r * row_stride + 16 * c, c + 1 < C ? __mmask16{0xFFFF} : last, acc[r][c], add);
  }
}

template <typename T, typename Out, int C>
void columns(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add) {
  Ahead ahead = Ahead::of(b, (a.rows + max_rows - 1) / max_rows);
  int64_t m = 0;
  for (; m + max_rows <= a.rows; m += max_rows, ahead.bytes += ahead.step * a.depth)
    block<T, Out, max_rows, C>(a.rows_from(m), b, ahead, out + m * row_stride, row_stride, add);
  const Left rest = a.rows_from(m);
  out += m * row_stride;
  switch (rest.rows) {
    case 1:
      return block<T, Out, 1, C>(rest, b, ahead, out, row_stride, add);
    case 2:
      return block<T, Out, 2, C>(rest, b, ahead, out, row_stride, add);
    case 3:
      return block<T, Out, 3, C>(rest, b, ahead, out, row_stride, add);
    case 4:
      return block<T, Out, 4, C>(rest, b, ahead, out, row_stride, add);
    case 5:
      return block<T, Out, 5, C>(rest, b, ahead, out, row_stride, add);
  }
}

/// y = x transposed, both 16 x 16 words.
FARSKIP_AVX512 inline void transpose(__m512i (&x)[16], __m512i (&y)[16]) {
#pragma GCC unroll 8
  for (int r = 0; r < 16; r += 2) {
    y[r] = _mm512_unpacklo_epi32(x[r], x[r + 1]);
    y[r + 1] = _mm512_unpackhi_epi32(x[r], x[r + 1]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 16; r += 4) {
    x[r] = _mm512_unpacklo_epi64(y[r], y[r + 2]);
    x[r + 1] = _mm512_unpackhi_epi64(y[r], y[r + 2]);
    x[r + 2] = _mm512_unpacklo_epi64(y[r + 1], y[r + 3]);
    x[r + 3] = _mm512_unpackhi_epi64(y[r + 1], y[r + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // 4 x 4 blocks of 128 bits
    const __m512i low02 = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88),
                  high02 = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xdd);
    const __m512i low13 = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
    const __m512i high13 = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xdd);
    y[i] = _mm512_shuffle_i32x4(low02, low13, 0x88);
    y[8 + i] = _mm512_shuffle_i32x4(low02, low13, 0xdd);
    y[4 + i] = _mm512_shuffle_i32x4(high02, high13, 0x88);
    y[12 + i] = _mm512_shuffle_i32x4(high02, high13, 0xdd);
  }
}

}  // namespace

FARSKIP_AVX512 void transpose(const char* in, int64_t stride, int64_t rows, int64_t cols, uint32_t* out,
                              int64_t width) {
  __m512i x[16], y[16];
  if (rows == 16 && cols == 16) {  // most of them: no masks
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) x[r] = _mm512_loadu_si512(in + r * stride);
    transpose(x, y);
#pragma GCC unroll 16
    for (int c = 0; c < 16; ++c) _mm512_storeu_si512(out + c * width, y[c]);
    return;
  }
  const auto wanted = static_cast<__mmask16>(0xFFFFU >> (16 - cols));
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r)
    x[r] = r < rows ? _mm512_maskz_loadu_epi32(wanted, in + r * stride) : _mm512_setzero_si512();
  transpose(x, y);
  for (int64_t c = 0; c < cols; ++c) _mm512_storeu_si512(out + c * width, y[c]);
}

template <typename T, typename Out>
void multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add) {
  switch (b.width / 16) {
    case 1:
      return columns<T, Out, 1>(a, b, out, row_stride, add);
    case 2:
      return columns<T, Out, 2>(a, b, out, row_stride, add);
    case 3:
      return columns<T, Out, 3>(a, b, out, row_stride, add);
    case 4:
      return columns<T, Out, 4>(a, b, out, row_stride, add);
  }
}

template void multiply<float, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, float>(const Left&, const Panel&, float*, int64_t, bool);
template void multiply<at::BFloat16, at::BFloat16>(const Left&, const Panel&, at::BFloat16*, int64_t, bool);

}  // namespace farskip::nn::tiles::avx512

#endif
