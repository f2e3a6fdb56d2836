#pragma once
// Loops over rows on a CPU: divided among threads, and compiled for several generations of x86-64, of which the
// processor takes its newest when the program starts. Other compilers and processors get the one plain version.

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define FARSKIP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FARSKIP_CLONES
#endif
/// For everything that stands inside such a loop: what is not inlined is not compiled for the machine.
#define FARSKIP_INLINE __attribute__((always_inline))

namespace farskip::nn {

template <typename Body>
FARSKIP_CLONES void for_machine(int64_t begin, int64_t end, const Body& body) {
  body(begin, end);
}

/// Calls body(begin, end) for parts of [0, num_rows), each of about 32,768 elements or more where there are as many.
/// `body` is a lambda marked FARSKIP_INLINE. What it computes for a row may not depend on the part the row is in.
template <typename Body>
void parallel_rows(int64_t num_rows, int64_t elements_per_row, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements_per_row));
  at::parallel_for(0, num_rows, grain, [&](int64_t begin, int64_t end) { for_machine(begin, end, body); });
}

/// Independent partial sums, so that the compiler can vectorise without reordering.
inline constexpr int64_t num_lanes = 16;

/// lanes[0] op lanes[1] op ...: halves onto halves.
template <typename wide_t, typename Op>
FARSKIP_INLINE inline wide_t fold(wide_t* lanes, const Op& op) {
  for (int64_t half = num_lanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) lanes[l] = op(lanes[l], lanes[l + half]);
  }
  return lanes[0];
}

/// f(0) + f(1) + ... + f(n-1) in an order fixed by n alone: `num_lanes` interleaved partial sums, then those by halves.
template <typename wide_t, typename F>
FARSKIP_INLINE inline wide_t lane_sum(int64_t n, const F& f) {
  wide_t lanes[num_lanes] = {};
  int64_t i = 0;
  for (; i + num_lanes <= n; i += num_lanes) {
    for (int64_t l = 0; l < num_lanes; ++l) lanes[l] += f(i + l);
  }
  for (; i < n; ++i) lanes[i % num_lanes] += f(i);
  return fold(lanes, [](wide_t a, wide_t b) FARSKIP_INLINE { return a + b; });
}

/// The largest of n > 0 values. Which of them it is where one is NaN is not said.
template <typename wide_t, typename scalar_t>
FARSKIP_INLINE inline wide_t lane_max(int64_t n, const scalar_t* values) {
  wide_t lanes[num_lanes];
  for (wide_t& lane : lanes) lane = static_cast<wide_t>(values[0]);
  int64_t i = 0;
  for (; i + num_lanes <= n; i += num_lanes) {
    for (int64_t l = 0; l < num_lanes; ++l) {
      const auto value = static_cast<wide_t>(values[i + l]);
      lanes[l] = lanes[l] > value ? lanes[l] : value;
    }
  }
  for (; i < n; ++i) lanes[i % num_lanes] = std::max(lanes[i % num_lanes], static_cast<wide_t>(values[i]));
  return fold(lanes, [](wide_t a, wide_t b) FARSKIP_INLINE { return a > b ? a : b; });
}

/// 0 where `gone`, else the value; by its bits, as a choice between two expressions becomes a branch that no loop with
/// vectors has.
FARSKIP_INLINE inline float zero_where(bool gone, float value) {
  return std::bit_cast<float>(std::bit_cast<int32_t>(value) & (static_cast<int32_t>(gone) - 1));
}

/// e^x within two units in the last place, as a loop can be vectorised with: x = n ln 2 + r, e^r by the polynomial of
/// Cephes (Moshier, expf), times 2^n. Below -87.3 it is 0, above 88 that of 88; NaN stays NaN.
FARSKIP_INLINE inline float exponential(float argument) {
  float x = argument < -87.3F ? -87.3F : argument;
  x = x > 88.0F ? 88.0F : x;
  constexpr float to_integer = 12582912.0F;  // 1.5 * 2^23: adding it rounds
  const float n = (x * 1.44269504F + to_integer) - to_integer;
  const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float power = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return zero_where(argument < -87.3F, (p * (r * r) + r + 1.0F) * power);
}
FARSKIP_INLINE inline double exponential(double x) { return std::exp(x); }

/// 1 / (1 + e^-x); 0 where e^-x is beyond fp32.
FARSKIP_INLINE inline float logistic(float x) { return zero_where(x < -88.0F, 1.0F / (1.0F + exponential(-x))); }
FARSKIP_INLINE inline double logistic(double x) { return 1.0 / (1.0 + exponential(-x)); }

}  // namespace farskip::nn
