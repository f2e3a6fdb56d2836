#include "nn/tiles.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/error.h"
#include "nn/matrix_unit.h"
#include "nn/wide.h"

namespace farskip::nn::tiles {

#if FARSKIP_TILES

bool supported(at::ScalarType type) {
  static const bool words = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const bool pairs = words && __builtin_cpu_supports("avx512bf16");
  return type == at::kFloat ? words : type == at::kBFloat16 && pairs;
}

namespace {

constexpr int64_t max_rows = 6;  // 6 x 4 sums, 4 vectors of the panel and a factor fit into 32 registers

template <typename T>
constexpr int64_t word_elements = 4 / sizeof(T);

/// acc + a b: a word of the left operand times 16 of the right one.
template <typename T>
FARSKIP_WIDE inline __m512 fused(__m512 acc, uint32_t a, __m512i b) {
  if constexpr (std::is_same_v<T, float>) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(a))), _mm512_castsi512_ps(b), acc);
  } else {
    return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a))),
                            reinterpret_cast<__m512bh>(b));
  }
}

template <typename Out>
FARSKIP_WIDE inline void put(Out* out, __mmask16 mask, __m512 value, bool add) {
  if constexpr (std::is_same_v<Out, float>) {
    if (add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), value);
    _mm512_mask_storeu_ps(out, mask, value);
  } else {
    _mm256_mask_storeu_epi16(out, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }
}

/// Bytes that a block fetches while it computes: `step` of them for each inner index.
struct Ahead {
  const char* bytes;
  int64_t step;
};

/// R rows times 16 C columns.
template <typename T, typename Out, int R, int C>
FARSKIP_WIDE void block(const Left& a, const Panel& b, Ahead ahead, Out* out, int64_t row_stride, bool add) {
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
  // Each block fetches its share of the next panel, up to a line for each inner index.
  const int64_t num_blocks = std::max<int64_t>(1, (a.rows + max_rows - 1) / max_rows);
  Ahead ahead{reinterpret_cast<const char*>(b.next == nullptr ? b.words : b.next),
              b.next == nullptr ? 0 : std::min<int64_t>(64, (64 * C + num_blocks - 1) / num_blocks)};
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
FARSKIP_WIDE inline void transpose(__m512i (&x)[16], __m512i (&y)[16]) {
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

/// Writes words (row, column) to out[column * width + row] for up to 16 rows and 16 columns. Rows lie `stride` bytes
/// apart.
FARSKIP_WIDE void transpose(const char* in, int64_t stride, int64_t rows, int64_t cols, uint32_t* out, int64_t width) {
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

/// Words (low[n], high[n]) for n < num; high may be null.
FARSKIP_WIDE void interleave(const at::BFloat16* low, const at::BFloat16* high, int64_t num, uint32_t* out) {
  for (int64_t n = 0; n < num; n += 16) {
    const auto mask = static_cast<__mmask16>(num - n >= 16 ? 0xFFFF : (1U << (num - n)) - 1);
    __m512i word = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low + n));
    if (high != nullptr) {
      word =
          _mm512_or_si512(word, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, high + n)), 16));
    }
    _mm512_mask_storeu_epi32(out + n, mask, word);
  }
}

/// Words (k, n) of columns [begin, begin + cols) of b, n the dense index.
template <typename T>
void pack_row(const Matrix<T>& b, int64_t k, int64_t begin, int64_t cols, uint32_t* out) {
  const T* row = b.data + k * word_elements<T> * b.row_stride + begin;
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(out, row, cols * sizeof(float));
  } else {
    interleave(row, 2 * k + 1 < b.rows ? row + b.row_stride : nullptr, cols, out);
  }
}

template <typename T>
int64_t words_of(int64_t inner) {
  return (inner + word_elements<T> - 1) / word_elements<T>;
}

}  // namespace

template <typename T>
Left left(const Matrix<T>& a, std::vector<uint32_t>& storage) {
  const int64_t depth = words_of<T>(a.cols), per_word = word_elements<T>;
  const bool dense_inner = a.col_stride == 1;
  if (std::is_same_v<T, float> || (dense_inner && a.cols % 2 == 0 && a.row_stride % 2 == 0)) {
    return {reinterpret_cast<const uint32_t*>(a.data), a.rows, depth, dense_inner ? a.row_stride / per_word : 1,
            dense_inner ? 1 : a.col_stride};
  }
  const int64_t stride = (depth + 15) / 16 * 16;  // of words turned into rows, as the matrix unit reads them
  const bool turned = !dense_inner && has_matrix_unit();
  storage.resize(depth * a.rows + (turned ? stride * a.rows : 0));
  if (!dense_inner) {
    for (int64_t k = 0; k < depth; ++k) pack_row(a.t(), k, 0, a.rows, storage.data() + k * a.rows);
    if (!turned) return {storage.data(), a.rows, depth, 1, a.rows};
    uint32_t* rows = storage.data() + depth * a.rows;
    for (int64_t m = 0; m < a.rows; m += 16) {
      for (int64_t k = 0; k < depth; k += 16) {
        transpose(reinterpret_cast<const char*>(storage.data() + k * a.rows + m), 4 * a.rows,
                  std::min<int64_t>(16, depth - k), std::min<int64_t>(16, a.rows - m), rows + m * stride + k, stride);
      }
    }
    return {rows, a.rows, depth, stride, 1};
  }
  std::fill(storage.begin(), storage.end(), 0);
  for (int64_t m = 0; m < a.rows; ++m)
    std::memcpy(storage.data() + m * depth, a.data + m * a.row_stride, a.cols * sizeof(T));
  return {storage.data(), a.rows, depth, depth, 1};
}

template <typename T>
Panel pack(const Matrix<T>& b, int64_t begin, uint32_t* words) {
  const int64_t cols = std::min(panel_cols, b.cols - begin), width = (cols + 15) / 16 * 16, depth = words_of<T>(b.rows);
  const int64_t whole = b.rows / word_elements<T>;  // words with all their elements
  if (b.col_stride == 1) {
    for (int64_t k = 0; k < depth; ++k) {
      pack_row(b, k, begin, cols, words + k * width);
      std::fill(words + k * width + cols, words + (k + 1) * width, 0);
    }
    return {words, cols, width, depth};
  }
  const int64_t stride = b.col_stride * static_cast<int64_t>(sizeof(T));
  for (int64_t n = 0; n < width; n += 16) {
    const int64_t num = std::clamp<int64_t>(cols - n, 0, 16);
    const char* in = reinterpret_cast<const char*>(b.data + (begin + n) * b.col_stride);
    for (int64_t k = 0; k < whole; k += 16)
      transpose(in + 4 * k, stride, num, std::min<int64_t>(16, whole - k), words + k * width + n, width);
    if (whole == depth) continue;
    for (int64_t i = 0; i < 16; ++i) {
      uint16_t last = 0;
      if (i < num) std::memcpy(&last, in + i * stride + 4 * whole, 2);
      words[whole * width + n + i] = last;
    }
  }
  return {words, cols, width, depth};
}

void unpack(const Panel& b, uint32_t* rows, int64_t stride) {
  for (int64_t n = 0; n < b.width; n += 16) {
    for (int64_t k = 0; k < b.depth; k += 16) {
      transpose(reinterpret_cast<const char*>(b.words + k * b.width + n), 4 * b.width,
                std::min<int64_t>(16, b.depth - k), std::min<int64_t>(16, b.cols - n), rows + n * stride + k, stride);
    }
  }
}

template <typename T, typename Out>
void multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add) {
  FARSKIP_CHECK(a.depth == b.depth, "operands of different inner sizes");
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    if (a.depth_stride == 1 && has_matrix_unit()) return unit_multiply(a, b, out, row_stride, add);
  }
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

#else

bool supported(at::ScalarType) { return false; }

template <typename T>
Left left(const Matrix<T>&, std::vector<uint32_t>&) {
  fail("tiles are not built for this processor");
}
template <typename T>
Panel pack(const Matrix<T>&, int64_t, uint32_t*) {
  fail("tiles are not built for this processor");
}
void unpack(const Panel&, uint32_t*, int64_t) { fail("tiles are not built for this processor"); }
template <typename T, typename Out>
void multiply(const Left&, const Panel&, Out*, int64_t, bool) {
  fail("tiles are not built for this processor");
}

#endif

namespace {

bool dense(const at::Tensor& x) { return x.dim() == 2 && (x.stride(0) == 1 || x.stride(1) == 1); }

/// REQUIRES: dense.
template <typename T>
Matrix<T> matrix(const at::Tensor& x) {
  return {x.const_data_ptr<T>(), x.size(0), x.size(1), x.stride(0), x.stride(1)};
}

template <typename T>
void product(T* out, const Matrix<T>& a, const Matrix<T>& b) {
  std::vector<uint32_t> storage;
  const Left rows = left(a, storage);
  const int64_t num_panels = (b.cols + panel_cols - 1) / panel_cols;
  const int64_t work = std::max<int64_t>(1, a.rows * a.cols * panel_cols);
  at::parallel_for(0, num_panels, std::max<int64_t>(1, (1 << 22) / work), [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> words(panel_words<T>(b.rows));
    for (int64_t p = begin; p < end; ++p)
      multiply<T>(rows, pack(b, p * panel_cols, words.data()), out + p * panel_cols, b.cols);
  });
}

}  // namespace

void product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (!out.is_cpu() || !supported(out.scalar_type()) || !dense(a) || !dense(b) || !out.is_contiguous()) {
    at::Tensor result = out;
    at::mm_out(result, a, b);
  } else if (out.scalar_type() == at::kFloat) {
    product(out.data_ptr<float>(), matrix<float>(a), matrix<float>(b));
  } else {
    product(out.data_ptr<at::BFloat16>(), matrix<at::BFloat16>(a), matrix<at::BFloat16>(b));
  }
}

#define FARSKIP_TILES_FOR(T)                                       \
  template Left left<T>(const Matrix<T>&, std::vector<uint32_t>&); \
  template Panel pack<T>(const Matrix<T>&, int64_t, uint32_t*);    \
  template void multiply<T, float>(const Left&, const Panel&, float*, int64_t, bool);
FARSKIP_TILES_FOR(float)
FARSKIP_TILES_FOR(at::BFloat16)
#undef FARSKIP_TILES_FOR
template void multiply<at::BFloat16, at::BFloat16>(const Left&, const Panel&, at::BFloat16*, int64_t, bool);

}  // namespace farskip::nn::tiles
