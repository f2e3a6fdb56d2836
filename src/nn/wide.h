#pragma once
// For the few files with 512-bit vectors written out: FARSKIP_WIDE marks a function that has them, FARSKIP_TILES says
// whether this compiler and processor family do. Whoever calls one asks tiles::supported() first.

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
// GCC 12 warns falsely of its own undefined vectors (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define FARSKIP_TILES 1
#define FARSKIP_WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#else
#define FARSKIP_TILES 0
#define FARSKIP_WIDE
#endif
