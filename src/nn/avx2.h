#pragma once
// bf16 in 256-bit vectors of processors that have no instructions for it. For files with AVX2 written out.

#include "nn/processor.h"

#if FARSKIP_VECTORS

namespace farskip::nn::avx2 {

/// Of 8 words of two bf16 each the lower or the higher ones, as fp32.
FARSKIP_AVX2 inline __m256 low_half(__m256i words) { return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)); }
FARSKIP_AVX2 inline __m256 high_half(__m256i words) {
  return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
}

/// To the nearest number of bf16, ties to even. REQUIRES: not NaN.
FARSKIP_AVX2 inline __m256 rounded_to_bf16(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return high_half(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))));
}

}  // namespace farskip::nn::avx2

#endif
