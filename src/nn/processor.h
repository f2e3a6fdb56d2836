#pragma once
// Which vectors a kernel may use: the few files that have them written out ask here, and mark their functions.

#include <c10/core/ScalarType.h>

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
// GCC 12 warns falsely of its own undefined vectors (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
/// Whether this compiler and processor family have them at all.
#define FARSKIP_VECTORS 1
#define FARSKIP_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define FARSKIP_AVX2 __attribute__((target("avx2,fma")))
#else
#define FARSKIP_VECTORS 0
#endif

namespace farskip::nn {

enum class Vectors : uint8_t { none, avx2, avx512 };

/// The widest of this processor for operands of `type`: fp32, or bf16, of which AVX-512 needs the instructions for
/// pairs (AVX512_BF16) and AVX2 does without. Other types: none.
Vectors vectors_for(at::ScalarType type);

}  // namespace farskip::nn
