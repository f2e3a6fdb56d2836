#include "nn/flash_rows.h"

#include <limits>
#include <type_traits>

#include "nn/for_machine.h"
#include "nn/processor.h"

namespace farskip::nn {

namespace {

/// On any processor.
namespace plain {

template <typename T>
void forward_rows(const Block& b, float scale, const float* scores, T* weights, float* largest, float* sum, float* out,
                  int64_t width) {
  for_machine(b.first, b.rows, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t seen = b.seen(r);
      float x[tiles::panel_cols];
      for (int64_t n = 0; n < tiles::panel_cols; ++n) {
        const float score = scores[r * tiles::panel_cols + n] * scale;
        x[n] = n < seen ? score : -std::numeric_limits<float>::infinity();
      }
      const float top = std::max(largest[r], lane_max<float>(tiles::panel_cols, x));
      for (float& value : x) value = exponential(value - top);
      for (int64_t n = 0; n < tiles::panel_cols; ++n) weights[r * tiles::panel_cols + n] = static_cast<T>(x[n]);
      const float added = lane_sum<float>(tiles::panel_cols, [&](int64_t n) FARSKIP_INLINE { return x[n]; });
      if (top == largest[r]) {
        sum[r] += added;
        continue;
      }
      const float shrink = exponential(largest[r] - top);
      sum[r] = sum[r] * shrink + added;
      largest[r] = top;
      for (int64_t n = 0; n < width; ++n) out[r * width + n] *= shrink;
    }
  });
}

template <typename T>
void backward_rows(const Block& b, float scale, const float* scores, const float* dweights, const float* lse,
                   const float* delta, T* weights, T* dscores) {
  for_machine(b.first, b.rows, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * tiles::panel_cols, seen = b.seen(r);
      for (int64_t n = 0; n < tiles::panel_cols; ++n) {
        const float p = exponential(scores[at + n] * scale - lse[r]);
        const float ds = scale * p * (dweights[at + n] - delta[r]);
        weights[at + n] = static_cast<T>(zero_where(n >= seen, p));
        dscores[at + n] = static_cast<T>(zero_where(n >= seen, ds));
      }
    }
  });
}

}  // namespace plain

#if FARSKIP_VECTORS
namespace avx512 {

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

}  // namespace avx512
#endif

template <typename T>
bool wide() {
  return vectors_for(c10::CppTypeToScalarType<T>::value) == Vectors::avx512;
}

}  // namespace

template <typename T>
void softmax_rows(const Block& b, float scale, const float* scores, T* weights, float* largest, float* sum, float* out,
                  int64_t width) {
#if FARSKIP_VECTORS
  if (wide<T>()) return avx512::forward_rows(b, scale, scores, weights, largest, sum, out, width);
#endif
  plain::forward_rows(b, scale, scores, weights, largest, sum, out, width);
}

template <typename T>
void softmax_backward_rows(const Block& b, float scale, const float* scores, const float* dweights, const float* lse,
                           const float* delta, T* weights, T* dscores) {
#if FARSKIP_VECTORS
  if (wide<T>()) return avx512::backward_rows(b, scale, scores, dweights, lse, delta, weights, dscores);
#endif
  plain::backward_rows(b, scale, scores, dweights, lse, delta, weights, dscores);
}

#define FARSKIP_ROWS_FOR(T)                                                                                           \
  template void softmax_rows<T>(const Block&, float, const float*, T*, float*, float*, float*, int64_t);              \
  template void softmax_backward_rows<T>(const Block&, float, const float*, const float*, const float*, const float*, \
                                         T*, T*);
FARSKIP_ROWS_FOR(float)
FARSKIP_ROWS_FOR(at::BFloat16)
#undef FARSKIP_ROWS_FOR

}  // namespace farskip::nn
