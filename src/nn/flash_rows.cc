#include "nn/flash_rows.h"

#include <limits>
#include <type_traits>

#include "base/error.h"
#include "nn/avx2.h"

namespace farskip::nn {

#if FARSKIP_VECTORS

namespace avx2 {
namespace {

constexpr int num_vectors = tiles::panel_cols / 8;

/// e^x as exponential() of nn/for_machine.h; NaN stays.
FARSKIP_AVX2 inline __m256 exponential(__m256 argument) {
  const __m256 least = _mm256_set1_ps(-87.3F);
  const __m256 x = _mm256_min_ps(_mm256_set1_ps(88.0F), _mm256_max_ps(least, argument));
  const __m256 n =
      _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504F)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4F);
  for (const float c : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F})
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
  p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0F));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  const __m256 far = _mm256_cmp_ps(argument, least, _CMP_LT_OQ);
  return _mm256_andnot_ps(far, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

/// Which of columns [8 c, 8 c + 8) are among the first `seen`.
FARSKIP_AVX2 inline __m256 seen_mask(int64_t seen, int c) {
  const __m256i column = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * c));
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(seen)), column));
}

template <typename T>
FARSKIP_AVX2 inline void store(T* out, __m256 value) {
  if constexpr (std::is_same_v<T, float>) {
    _mm256_storeu_ps(out, value);
  } else {  // to the nearest, ties to even
    const __m256 none = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000));
    const __m256 nearest = _mm256_blendv_ps(rounded_to_bf16(value), nan, none);
    const __m256i words = _mm256_srli_epi32(_mm256_castps_si256(nearest), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(packed));
  }
}

/// Halves onto halves: 8 lanes, 4, 2 and 1.
template <typename Op>
FARSKIP_AVX2 inline float fold(__m256 value, Op op) {
  float lanes[8];
  _mm256_storeu_ps(lanes, value);
  for (int half = 4; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] = op(lanes[l], lanes[l + half]);
  }
  return lanes[0];
}

template <typename T>
FARSKIP_AVX2 void forward_rows(const Block& b, float scale, const float* scores, T* weights, float* largest, float* sum,
                               float* out, int64_t width) {
  const __m256 wide_scale = _mm256_set1_ps(scale), nothing = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t r = b.first; r < b.rows; ++r) {
    const int64_t seen = b.seen(r);
    __m256 x[num_vectors], most = nothing, all = _mm256_setzero_ps();
    for (int c = 0; c < num_vectors; ++c) {
      const __m256 score = _mm256_mul_ps(_mm256_loadu_ps(scores + r * tiles::panel_cols + 8 * c), wide_scale);
      x[c] = _mm256_blendv_ps(nothing, score, seen_mask(seen, c));
      most = _mm256_max_ps(most, x[c]);
    }
    const float top = std::max(largest[r], fold(most, [](float one, float other) { return std::max(one, other); }));
    const __m256 wide_top = _mm256_set1_ps(top);
    for (int c = 0; c < num_vectors; ++c) {
      x[c] = exponential(_mm256_sub_ps(x[c], wide_top));
      all = _mm256_add_ps(all, x[c]);
      store(weights + r * tiles::panel_cols + 8 * c, x[c]);
    }
    const float added = fold(all, [](float one, float other) { return one + other; });
    if (top == largest[r]) {
      sum[r] += added;
      continue;
    }
    const __m256 shrink = exponential(_mm256_set1_ps(largest[r] - top));
    sum[r] = sum[r] * _mm256_cvtss_f32(shrink) + added;
    largest[r] = top;
    float* row = out + r * width;
    int64_t n = 0;
    for (; n + 8 <= width; n += 8) _mm256_storeu_ps(row + n, _mm256_mul_ps(shrink, _mm256_loadu_ps(row + n)));
    for (; n < width; ++n) row[n] *= _mm256_cvtss_f32(shrink);
  }
}

template <typename T>
FARSKIP_AVX2 void backward_rows(const Block& b, float scale, const float* scores, const float* dweights,
                                const float* lse, const float* delta, T* weights, T* dscores) {
  const __m256 wide_scale = _mm256_set1_ps(scale);
  for (int64_t r = b.first; r < b.rows; ++r) {
    const __m256 lse_r = _mm256_set1_ps(lse[r]), delta_r = _mm256_set1_ps(delta[r]);
    for (int c = 0; c < num_vectors; ++c) {
      const int64_t at = r * tiles::panel_cols + 8 * c;
      const __m256 mask = seen_mask(b.seen(r), c);
      const __m256 p = exponential(_mm256_fmsub_ps(_mm256_loadu_ps(scores + at), wide_scale, lse_r));
      const __m256 ds =
          _mm256_mul_ps(_mm256_mul_ps(wide_scale, p), _mm256_sub_ps(_mm256_loadu_ps(dweights + at), delta_r));
      store(weights + at, _mm256_and_ps(mask, p));
      store(dscores + at, _mm256_and_ps(mask, ds));
    }
  }
}

}  // namespace
}  // namespace avx2

namespace avx512 {
namespace {

constexpr int num_vectors = tiles::panel_cols / 16;

/// e^x as exponential() of nn/for_machine.h; 0 far below 0.
FARSKIP_AVX512 inline __m512 exponential(__m512 argument) {
  const __m512 x = _mm512_min_ps(_mm512_set1_ps(88.0F), _mm512_max_ps(_mm512_set1_ps(-200.0F), argument));  // NaN stays
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504F)), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4F);
  for (const float c : {1.3981999507e-3F, 8.3334519073e-3F, 4.1665795894e-2F, 1.6666665459e-1F, 5.0000001201e-1F})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(p, n);
}

/// Which of columns [16 c, 16 c + 16) are among the first `seen`.
FARSKIP_AVX512 inline __mmask16 seen_mask(int64_t seen, int c) {
  return static_cast<__mmask16>((1U << std::clamp<int64_t>(seen - 16 * c, 0, 16)) - 1);
}

template <typename T>
FARSKIP_AVX512 inline void store(T* out, __m512 value) {
  if constexpr (std::is_same_v<T, float>) {
    _mm512_storeu_ps(out, value);
  } else {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }
}

template <typename T>
FARSKIP_AVX512 void forward_rows(const Block& b, float scale, const float* scores, T* weights, float* largest,
                                 float* sum, float* out, int64_t width) {
  const __m512 wide_scale = _mm512_set1_ps(scale), nothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t r = b.first; r < b.rows; ++r) {
    const int64_t seen = b.seen(r);
    __m512 x[num_vectors];
    for (int c = 0; c < num_vectors; ++c) {
      const __m512 score = _mm512_loadu_ps(scores + r * tiles::panel_cols + 16 * c);
      x[c] = _mm512_mask_mul_ps(nothing, seen_mask(seen, c), score, wide_scale);
    }
    const __m512 top4 = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
    const float top = std::max(largest[r], _mm512_reduce_max_ps(top4));
    const __m512 wide_top = _mm512_set1_ps(top);
    for (int c = 0; c < num_vectors; ++c) {
      x[c] = exponential(_mm512_sub_ps(x[c], wide_top));
      store(weights + r * tiles::panel_cols + 16 * c, x[c]);
    }
    const float added = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3])));
    if (top == largest[r]) {
      sum[r] += added;
      continue;
    }
    const __m512 shrink = exponential(_mm512_set1_ps(largest[r] - top));
    sum[r] = sum[r] * _mm512_cvtss_f32(shrink) + added;
    largest[r] = top;
    float* row = out + r * width;
    for (int64_t n = 0; n < width; n += 16) {
      const __mmask16 mask = seen_mask(width - n, 0);
      _mm512_mask_storeu_ps(row + n, mask, _mm512_mul_ps(shrink, _mm512_maskz_loadu_ps(mask, row + n)));
    }
  }
}

template <typename T>
FARSKIP_AVX512 void backward_rows(const Block& b, float scale, const float* scores, const float* dweights,
                                  const float* lse, const float* delta, T* weights, T* dscores) {
  const __m512 wide_scale = _mm512_set1_ps(scale);
  for (int64_t r = b.first; r < b.rows; ++r) {
    const __m512 lse_r = _mm512_set1_ps(lse[r]), delta_r = _mm512_set1_ps(delta[r]);
    for (int c = 0; c < num_vectors; ++c) {
      const int64_t at = r * tiles::panel_cols + 16 * c;
      const __mmask16 mask = seen_mask(b.seen(r), c);
      const __m512 p = exponential(_mm512_fmsub_ps(_mm512_loadu_ps(scores + at), wide_scale, lse_r));
      const __m512 ds =
          _mm512_mul_ps(_mm512_mul_ps(wide_scale, p), _mm512_sub_ps(_mm512_loadu_ps(dweights + at), delta_r));
      store(weights + at, _mm512_maskz_mov_ps(mask, p));
      store(dscores + at, _mm512_maskz_mov_ps(mask, ds));
    }
  }
}

}  // namespace
}  // namespace avx512

template <typename T>
static bool wide() {
  return vectors_for(c10::CppTypeToScalarType<T>::value) == Vectors::avx512;
}

template <typename T>
void softmax_rows(const Block& b, float scale, const float* scores, T* weights, float* largest, float* sum, float* out,
                  int64_t width) {
  (wide<T>() ? avx512::forward_rows<T> : avx2::forward_rows<T>)(b, scale, scores, weights, largest, sum, out, width);
}

template <typename T>
void softmax_backward_rows(const Block& b, float scale, const float* scores, const float* dweights, const float* lse,
                           const float* delta, T* weights, T* dscores) {
  (wide<T>() ? avx512::backward_rows<T> : avx2::backward_rows<T>)(b, scale, scores, dweights, lse, delta, weights,
                                                                  dscores);
}

#else

template <typename T>
void softmax_rows(const Block&, float, const float*, T*, float*, float*, float*, int64_t) {
  fail("not built for this processor");
}
template <typename T>
void softmax_backward_rows(const Block&, float, const float*, const float*, const float*, const float*, T*, T*) {
  fail("not built for this processor");
}

#endif

#define FARSKIP_ROWS_FOR(T)                                                                                           \
  template void softmax_rows<T>(const Block&, float, const float*, T*, float*, float*, float*, int64_t);              \
  template void softmax_backward_rows<T>(const Block&, float, const float*, const float*, const float*, const float*, \
                                         T*, T*);
FARSKIP_ROWS_FOR(float)
FARSKIP_ROWS_FOR(at::BFloat16)
#undef FARSKIP_ROWS_FOR

}  // namespace farskip::nn
