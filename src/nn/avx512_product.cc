// Rows times rows with 512-bit vectors: blocks of up to 6 rows of x and 4 rows of a weight, each sum in a vector of its
// own. Quantised elements are decoded in registers; where there are more rows of x, once, into a buffer.

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "nn/processor.h"
#include "nn/row_products.h"

#if FARSKIP_VECTORS

namespace farskip::nn {
namespace {

constexpr int64_t max_rows = 6;  // 6 x 4 sums, 4 vectors of weights and one of x fit into 32 registers
constexpr int64_t num_columns = 4;

/// Elements of a vector.
template <typename T>
constexpr int64_t lanes = 64 / sizeof(T);

template <typename T>
using Mask = std::conditional_t<std::is_same_v<T, float>, __mmask16, __mmask32>;

/// Of the first `num` < lanes.
template <typename T>
Mask<T> first(int64_t num) {
  return static_cast<Mask<T>>((1ULL << num) - 1);
}

FARSKIP_AVX512 inline __m512i masked_load(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_epi32(mask, p); }
FARSKIP_AVX512 inline __m512i masked_load(const at::BFloat16* p, __mmask32 mask) {
  return _mm512_maskz_loadu_epi16(mask, p);
}
FARSKIP_AVX512 inline __m512i masked(__m512i vector, __mmask16 mask) { return _mm512_maskz_mov_epi32(mask, vector); }
FARSKIP_AVX512 inline __m512i masked(__m512i vector, __mmask32 mask) { return _mm512_maskz_mov_epi16(mask, vector); }

/// sum + a b, lane by lane; of bf16 a lane is a pair of neighbours.
template <typename T>
FARSKIP_AVX512 inline __m512 fused(__m512 sum, __m512i a, __m512i b) {
  if constexpr (std::is_same_v<T, float>) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  } else {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
}

/// The two numbers of bf16 at `p`, in every lane.
FARSKIP_AVX512 inline __m512i broadcast_pair(const void* p) {
  int pair;
  std::memcpy(&pair, p, sizeof(pair));
  return _mm512_set1_epi32(pair);
}
FARSKIP_AVX512 inline __m512 low_half(__m512i pair) { return _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)); }
FARSKIP_AVX512 inline __m512 high_half(__m512i pair) {
  return _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
}

/// Vector i of a row of a format, in the type T of the product. What it holds behind the row's end is finite.
template <WeightFormat format, typename T>
struct Reader;

template <typename T>
struct OwnReader {
  static constexpr int64_t vector_bytes = 64;
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i) {
    return _mm512_loadu_si512(row + 64 * i);
  }
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i, Mask<T> mask) {
    return masked_load(reinterpret_cast<const T*>(row) + i * lanes<T>, mask);
  }
};
template <>
struct Reader<WeightFormat::fp32, float> : OwnReader<float> {};
template <>
struct Reader<WeightFormat::bf16, at::BFloat16> : OwnReader<at::BFloat16> {};

/// The 16 numbers that a block's elements are among.
FARSKIP_AVX512 inline __m512 numbers(const Int4Block& block) {
  const __m512i pair = broadcast_pair(&block);
  return _mm512_fmadd_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), low_half(pair),
                         high_half(pair));
}
/// A permutation looks at an index's last 4 (fp32) or 5 bits, so what stands above a half byte does not matter: of bf16
/// numbers there are twice 16.
FARSKIP_AVX512 inline __m512i decode(const Int4Block& block, int64_t half, float) {
  const __m512i byte = _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block.q + 8 * half)));
  const __m512i index = _mm512_or_si512(byte, _mm512_slli_epi64(byte, 28));
  return _mm512_castps_si512(_mm512_permutexvar_ps(index, numbers(block)));
}
FARSKIP_AVX512 inline __m512i decode(const Int4Block& block, int64_t, at::BFloat16) {
  const __m512i byte = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block.q)));
  const __m512i index = _mm512_or_si512(byte, _mm512_slli_epi32(byte, 12));
  const auto table = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(numbers(block)));
  return _mm512_permutexvar_epi16(index, _mm512_broadcast_i64x4(table));
}

/// q without its scale, which belongs to the whole row.
FARSKIP_AVX512 inline __m512 numbers(__m128i q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)); }
template <>
struct Reader<WeightFormat::int8, float> {
  static constexpr int64_t vector_bytes = 16;
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i) {
    return _mm512_castps_si512(numbers(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 16 * i))));
  }
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i, __mmask16) { return load(row, i); }
};
template <>
struct Reader<WeightFormat::int8, at::BFloat16> {
  static constexpr int64_t vector_bytes = 32;
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i) {
    const auto* q = reinterpret_cast<const __m128i*>(row + 32 * i);
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(numbers(_mm_loadu_si128(q + 1)), numbers(_mm_loadu_si128(q))));
  }
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i, __mmask32) { return load(row, i); }
};

/// A block of 32 is one vector of bf16 or two of fp32, and a row's last block is whole.
template <typename Block, typename T>
struct BlockReader {
  static constexpr int64_t per_block = block_elements / lanes<T>;
  static constexpr int64_t vector_bytes = sizeof(Block) / per_block;
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i) {
    return decode(reinterpret_cast<const Block*>(row)[i / per_block], i % per_block, T());
  }
  FARSKIP_AVX512 static inline __m512i load(const std::byte* row, int64_t i, Mask<T> mask) {
    return masked(load(row, i), mask);
  }
};

template <>
struct Reader<WeightFormat::int4, float> : BlockReader<Int4Block, float> {};
template <>
struct Reader<WeightFormat::int4, at::BFloat16> : BlockReader<Int4Block, at::BFloat16> {};

/// Both halves of a added, then those of b.
FARSKIP_AVX512 inline __m512 halves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}

/// The sums over the lanes of four vectors, each by halves: 16 lanes become 8, 4, 2 and 1.
FARSKIP_AVX512 inline __m128 fold(const __m512 (&v)[num_columns]) {
  const __m512 ab = halves(v[0], v[1]), cd = halves(v[2], v[3]);  // 8 lanes of each
  const __m512 abcd = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
  const __m512 two = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0x4E));
  const __m512 one = _mm512_add_ps(two, _mm512_permute_ps(two, 0xB1));
  return _mm512_castps512_ps128(
      _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), one));
}

FARSKIP_AVX512 inline __m128 read(const float* p, __mmask8 mask) { return _mm_maskz_loadu_ps(mask, p); }
FARSKIP_AVX512 inline __m128 read(const at::BFloat16* p, __mmask8 mask) {
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_maskz_loadu_epi16(mask, p)), 16));
}
FARSKIP_AVX512 inline void write(float* p, __mmask8 mask, __m128 value) { _mm_mask_storeu_ps(p, mask, value); }
FARSKIP_AVX512 inline void write(at::BFloat16* p, __mmask8 mask, __m128 value) {
  _mm_mask_storeu_epi16(p, mask, reinterpret_cast<__m128i>(_mm_cvtneps_pbh(value)));
}

/// R rows of x, from m on, times up to 4 rows of the weight, from n on.
template <WeightFormat format, typename T, int R>
FARSKIP_AVX512 void block(const RowProduct<T>& p, int64_t m, int64_t n) {
  using In = Reader<format, T>;
  const int64_t num = std::min(num_columns, p.num_w - n);
  const T* x = p.x + m * p.x_stride;
  const std::byte* w[num_columns];
  for (int64_t c = 0; c < num_columns; ++c) w[c] = p.w + (n + std::min(c, num - 1)) * p.w_stride;
  // Few rows of x wait for memory, so that the next block's rows are fetched ahead: in the order they lie in.
  const bool waits = p.num_x <= max_rows;
  constexpr int64_t step = num_columns * In::vector_bytes;
  const std::byte* next = p.w + (n + num_columns) * p.w_stride;
  __m512 sum[R][num_columns];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < num_columns; ++c) sum[r][c] = _mm512_setzero_ps();
  const int64_t whole = p.depth / lanes<T>, rest = p.depth % lanes<T>;
  for (int64_t i = 0; i < whole; ++i) {
    if (waits) {
#pragma GCC unroll 4
      for (int64_t byte = 0; byte < step; byte += 64) _mm_prefetch(next + i * step + byte, _MM_HINT_T0);
    }
    __m512i factor[num_columns];
#pragma GCC unroll 4
    for (int c = 0; c < num_columns; ++c) {
      factor[c] = In::load(w[c], i);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m512i row = _mm512_loadu_si512(x + r * p.x_stride + i * lanes<T>);
#pragma GCC unroll 4
      for (int c = 0; c < num_columns; ++c) sum[r][c] = fused<T>(sum[r][c], row, factor[c]);
    }
  }
  if (rest > 0) {
    const Mask<T> mask = first<T>(rest);
    for (int c = 0; c < num_columns; ++c) {
      const __m512i factor = In::load(w[c], whole, mask);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r)
        sum[r][c] = fused<T>(sum[r][c], masked_load(x + r * p.x_stride + whole * lanes<T>, mask), factor);
    }
  }
  const auto columns = static_cast<__mmask8>((1U << num) - 1);
  const __m128 scale = p.scales == nullptr ? _mm_set1_ps(1) : read(p.scales + n, columns);
  const __m128 bias = p.bias == nullptr ? _mm_setzero_ps() : read(p.bias + n, columns);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    write(p.out + (m + r) * p.out_stride + n, columns, _mm_maskz_fmadd_ps(0xF, fold(sum[r]), scale, bias));
  }
}

template <WeightFormat format, typename T, int R>
void sweep(const RowProduct<T>& p, int64_t m) {
  for (int64_t n = 0; n < p.num_w; n += num_columns) block<format, T, R>(p, m, n);
}

template <WeightFormat format, typename T>
void multiply(const RowProduct<T>& p) {
  for (int64_t m = 0; m < p.num_x;) {
    const int64_t num_blocks = (p.num_x - m + max_rows - 1) / max_rows;  // of rows as equally many as can be
    const int64_t rows = (p.num_x - m + num_blocks - 1) / num_blocks;
    switch (rows) {
      case 1:
        sweep<format, T, 1>(p, m);
        break;
      case 2:
        sweep<format, T, 2>(p, m);
        break;
      case 3:
        sweep<format, T, 3>(p, m);
        break;
      case 4:
        sweep<format, T, 4>(p, m);
        break;
      case 5:
        sweep<format, T, 5>(p, m);
        break;
      case 6:
        sweep<format, T, 6>(p, m);
        break;
    }
    m += rows;
  }
}

template <typename T>
constexpr WeightFormat own_format = std::is_same_v<T, float> ? WeightFormat::fp32 : WeightFormat::bf16;

template <WeightFormat format, typename T>
FARSKIP_AVX512 void decode_rows(const RowProduct<T>& p, T* out, int64_t stride) {
  for (int64_t n = 0; n < p.num_w; ++n) {
    const std::byte* row = p.w + n * p.w_stride;
    for (int64_t i = 0; i < p.depth / lanes<T>; ++i)
      _mm512_storeu_si512(out + n * stride + i * lanes<T>, Reader<format, T>::load(row, i));
    if (const int64_t rest = p.depth % lanes<T>; rest > 0) {
      const int64_t last = p.depth / lanes<T>;
      _mm512_storeu_si512(out + n * stride + last * lanes<T>, Reader<format, T>::load(row, last, first<T>(rest)));
    }
  }
}

template <WeightFormat format, typename T>
void multiply_decoded(const RowProduct<T>& p) {
  if (p.num_x <= max_rows) return multiply<format>(p);
  const int64_t stride = (p.depth + lanes<T> - 1) / lanes<T> * lanes<T>;
  const auto decoded = std::make_unique_for_overwrite<T[]>(p.num_w * stride);
  decode_rows<format>(p, decoded.get(), stride);
  RowProduct<T> own = p;
  own.format = own_format<T>;
  own.w = reinterpret_cast<const std::byte*>(decoded.get());
  own.w_stride = stride * static_cast<int64_t>(sizeof(T));
  multiply<own_format<T>>(own);
}

}  // namespace

template <typename T>
void avx512_decode(const RowProduct<T>& p, T* out, int64_t stride) {
  if (p.format == WeightFormat::int8) return decode_rows<WeightFormat::int8>(p, out, stride);
  decode_rows<WeightFormat::int4>(p, out, stride);
}

template <typename T>
void avx512_product(const RowProduct<T>& p) {
  if (p.format == WeightFormat::int8) return multiply_decoded<WeightFormat::int8>(p);
  multiply_decoded<WeightFormat::int4>(p);
}

template void avx512_decode<float>(const RowProduct<float>&, float*, int64_t);
template void avx512_decode<at::BFloat16>(const RowProduct<at::BFloat16>&, at::BFloat16*, int64_t);
template void avx512_product<float>(const RowProduct<float>&);
template void avx512_product<at::BFloat16>(const RowProduct<at::BFloat16>&);

}  // namespace farskip::nn

#endif
