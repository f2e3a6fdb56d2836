#pragma once
// How the rows of a weight lie in memory for inference: as they are, or quantised in blocks of 32 neighbours of a row.
// A quantised weight is one whose elements are what its blocks say: products read nothing else of it, so that any two
// ways to compute them have the same factors.

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

namespace farskip::nn {

enum class WeightFormat : uint8_t { fp32, bf16, int8, int4 };

inline constexpr int64_t block_elements = 32;

/// Element i is scale * q[i], |q| <= 127; 8.5 bits an element.
struct Int8Block {
  at::BFloat16 scale;
  int8_t q[block_elements];
};

/// Element i is minimum + scale * q_i with q_2i in the low and q_2i+1 in the high half of byte i; 5 bits an element.
struct Int4Block {
  at::BFloat16 scale, minimum;
  uint8_t q[block_elements / 2];
};

/// Of elements that are not quantised: fp32 or bf16.
WeightFormat format_of(at::ScalarType type);

/// Bytes of a row of `depth` elements. The last block is filled up with zeros.
int64_t row_bytes(WeightFormat format, int64_t depth);

/// Rows [rows, K] of a weight, in fp32 or bf16, into blocks at `out`, row behind row. Each element differs from its own
/// by half a step at most, where a step is the block's scale: what bf16 holds next above max|w| / 127 (int8) or
/// (max w - minimum) / 15 (int4), with the minimum rounded downwards. Throws Error for elements that are not finite.
void quantize(const at::Tensor& rows, WeightFormat format, std::byte* out);

/// The elements of a row, exactly, into out [depth].
void decode_row(WeightFormat format, const std::byte* row, int64_t depth, float* out);

}  // namespace farskip::nn
