#pragma once
// How the rows of a weight lie in memory for inference: as they are, or quantised: row by row in 8 bits, in blocks of
// 32 neighbours in 4. A quantised weight is one whose elements are what its rows say: products read nothing else of it,
// so that any two ways to compute them have the same factors.

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

namespace farskip::nn {

enum class WeightFormat : uint8_t { fp32, bf16, int8, int4 };

inline constexpr int64_t block_elements = 32;

/// Of int4: element i is minimum + scale * q_i with q_2i in the low and q_2i+1 in the high half of byte i; 5 bits an
/// element.
struct Int4Block {
  at::BFloat16 scale, minimum;
  uint8_t q[block_elements / 2];
};

/// Of elements that are not quantised: fp32 or bf16.
WeightFormat format_of(at::ScalarType type);

/// Of int8: element i of a row is scale * q[i], |q| <= 127. A row is its q, filled up with zeros to whole blocks, and
/// the scale (fp32, of bf16's precision, so that products with q are exact) in 32 bytes: 8.1 bits an element where K is
/// 2048.
inline constexpr int64_t int8_tail_bytes = 32;

/// Bytes of a row of `depth` elements.
int64_t row_bytes(WeightFormat format, int64_t depth);
/// The scale of a row of int8.
float scale_of_row(const std::byte* row, int64_t depth);

/// Rows [rows, K] of a weight, in fp32 or bf16, into `out`, row behind row. Each element differs from its own by half a
/// step at most, where a step is the scale: what bf16 holds next above max|w| / 127 of a row (int8) or (max w -
/// minimum) / 15 of a block (int4), with the minimum rounded downwards. Throws Error for elements that are not finite.
void quantize(const at::Tensor& rows, WeightFormat format, std::byte* out);

/// The elements of a row, exactly, into out [depth].
void decode_row(WeightFormat format, const std::byte* row, int64_t depth, float* out);

}  // namespace farskip::nn
