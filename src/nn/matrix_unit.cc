#include "nn/matrix_unit.h"

#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/error.h"
#include "nn/processor.h"

#if FARSKIP_VECTORS && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace farskip::nn::tiles {

#if FARSKIP_VECTORS && defined(__linux__)

bool has_matrix_unit() {
  static const bool there = [] {
    constexpr unsigned bf16 = 1U << 22, registers = 1U << 24;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (vectors_for(at::kBFloat16) != Vectors::avx512 || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    if ((d & bf16) == 0 || (d & registers) == 0) return false;
    constexpr long ask_for_state = 0x1023, registers_data = 18;  // ARCH_REQ_XCOMP_PERM of Linux, for all threads
    return syscall(SYS_arch_prctl, ask_for_state, registers_data) == 0;
  }();
  return there;
}

namespace {

constexpr int64_t side = 16;           // rows of a register, and words of its rows
constexpr int64_t at_once = 2 * side;  // rows and columns of the sums in registers 0 to 3

/// Shapes of the registers: sums in 0 to 3 (row by row), left operands in 4 and 5, right ones in 6 and 7.
struct alignas(64) Shapes {
  uint8_t palette = 1, first_row = 0, unused[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  explicit Shapes(int64_t num_rows) {
    const int64_t upper = std::min(num_rows, side), lower = num_rows - upper;
    for (const int i : {0, 1, 4}) set(i, upper);
    for (const int i : {2, 3, 5}) set(i, lower);
    for (const int i : {6, 7}) set(i, side);
  }
  void set(int i, int64_t num_rows) {
    rows[i] = static_cast<uint8_t>(num_rows);
    row_bytes[i] = num_rows == 0 ? 0 : 4 * side;
  }
};

// The compiler's own intrinsics do not say that they read memory.
inline void configure(const Shapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes)); }
inline void release() { asm volatile("tilerelease" ::: "memory"); }
#define FARSKIP_LOAD(i, words, stride) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #i ::"r"(words), "r"(4 * (stride)) : "memory")
#define FARSKIP_STORE(i, words, stride) \
  asm volatile("tilestored %%tmm" #i ", (%0,%1,1)" ::"r"(words), "r"(4 * (stride)) : "memory")
#define FARSKIP_ZERO(i) asm volatile("tilezero %tmm" #i)
#define FARSKIP_FUSE(sum, left, right) asm volatile("tdpbf16ps %tmm" #right ", %tmm" #left ", %tmm" #sum)

/// Sixteen words of each row and column.
template <bool lower, bool right>
inline void step(const uint32_t* a, int64_t a_stride, const uint32_t* b, int64_t b_stride) {
  FARSKIP_LOAD(4, a, a_stride);
  FARSKIP_LOAD(6, b, b_stride);
  FARSKIP_FUSE(0, 4, 6);
  if constexpr (right) {
    FARSKIP_LOAD(7, b + side, b_stride);
    FARSKIP_FUSE(1, 4, 7);
  }
  if constexpr (lower) {
    FARSKIP_LOAD(5, a + side * a_stride, a_stride);
    FARSKIP_FUSE(2, 5, 6);
    if constexpr (right) FARSKIP_FUSE(3, 5, 7);
  }
}

/// What is left of rows or columns behind the last whole sixteen words, with zeros.
struct Rest {
  alignas(64) uint32_t a[at_once * side];
  alignas(64) uint32_t b[side * panel_cols];
};

template <bool lower, bool right>
void sums(const Left& a, const Panel& b, int64_t column, const Rest& rest, float* out, int64_t stride) {
  FARSKIP_ZERO(0);
  if constexpr (right) FARSKIP_ZERO(1);
  if constexpr (lower) FARSKIP_ZERO(2);
  if constexpr (lower && right) FARSKIP_ZERO(3);
  int64_t k = 0;
  for (; k + side <= a.depth; k += side) {
    step<lower, right>(a.words + k, a.row_stride, b.words + k * b.width + column, b.width);
  }
  if (k < a.depth) step<lower, right>(rest.a, side, rest.b + column, b.width);
  FARSKIP_STORE(0, out, stride);
  if constexpr (right) FARSKIP_STORE(1, out + side, stride);
  if constexpr (lower) FARSKIP_STORE(2, out + side * stride, stride);
  if constexpr (lower && right) FARSKIP_STORE(3, out + side * stride + side, stride);
}

#undef FARSKIP_LOAD
#undef FARSKIP_STORE
#undef FARSKIP_ZERO
#undef FARSKIP_FUSE

FARSKIP_AVX512 void put(const float* sums, int64_t rows, int64_t cols, float* out, int64_t stride, bool add) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < cols; n += 16) {
      const auto mask = static_cast<__mmask16>(cols - n >= 16 ? 0xFFFF : (1U << (cols - n)) - 1);
      __m512 value = _mm512_loadu_ps(sums + r * at_once + n);
      if (add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out + r * stride + n), value);
      _mm512_mask_storeu_ps(out + r * stride + n, mask, value);
    }
  }
}
FARSKIP_AVX512 void put(const float* sums, int64_t rows, int64_t cols, at::BFloat16* out, int64_t stride, bool) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < cols; n += 16) {
      const auto mask = static_cast<__mmask16>(cols - n >= 16 ? 0xFFFF : (1U << (cols - n)) - 1);
      const __m512 value = _mm512_loadu_ps(sums + r * at_once + n);
      _mm256_mask_storeu_epi16(out + r * stride + n, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
    }
  }
}

}  // namespace

template <typename Out>
void unit_multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add) {
  FARSKIP_CHECK(a.depth_stride == 1, "rows of words");
  Rest rest;
  const int64_t whole = a.depth / side * side, left = a.depth - whole;
  if (left > 0) {
    std::memset(&rest, 0, sizeof(rest));
    std::memcpy(rest.b, b.words + whole * b.width, left * b.width * sizeof(uint32_t));
  }
  alignas(64) float buffer[at_once * at_once];
  int64_t configured = 0;
  for (int64_t m = 0; m < a.rows; m += at_once) {
    const int64_t rows = std::min(at_once, a.rows - m);
    if (rows != configured) configure(Shapes(rows));
    configured = rows;
    const Left part = a.rows_from(m);
    for (int64_t r = 0; left > 0 && r < rows; ++r)
      std::memcpy(rest.a + r * side, part.words + r * a.row_stride + whole, left * sizeof(uint32_t));
    for (int64_t n = 0; n < b.width; n += at_once) {
      const bool right = b.width - n > side, lower = rows > side;
      const int64_t cols = std::min(at_once, b.cols - n);
      const auto kernel =
          lower ? (right ? sums<true, true> : sums<true, false>) : (right ? sums<false, true> : sums<false, false>);
      if constexpr (std::is_same_v<Out, float>) {
        if (!add && cols % side == 0) {
          kernel(part, b, n, rest, out + m * row_stride + n, row_stride);
          continue;
        }
      }
      kernel(part, b, n, rest, buffer, at_once);
      put(buffer, rows, cols, out + m * row_stride + n, row_stride, add);
    }
  }
  release();
}

#else

bool has_matrix_unit() { return false; }

template <typename Out>
void unit_multiply(const Left&, const Panel&, Out*, int64_t, bool) {
  fail("the matrix unit is not built for this processor");
}

#endif

template void unit_multiply<float>(const Left&, const Panel&, float*, int64_t, bool);
template void unit_multiply<at::BFloat16>(const Left&, const Panel&, at::BFloat16*, int64_t, bool);

}  // namespace farskip::nn::tiles
