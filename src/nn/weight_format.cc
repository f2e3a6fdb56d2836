#include "nn/weight_format.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "nn/for_machine.h"

namespace farskip::nn {
namespace {

static_assert(sizeof(Int8Block) == 34 && sizeof(Int4Block) == 20);

FARSKIP_INLINE inline float wide(at::BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.x) << 16);
}

/// The next number of bf16 that is not below (`upwards`), or not above, a finite one.
at::BFloat16 rounded(float value, bool upwards) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const bool away_from_zero = upwards == (value > 0);
  return {static_cast<uint16_t>((bits >> 16) + (away_from_zero && (bits & 0xFFFF) != 0)), at::BFloat16::from_bits()};
}

float step_number(float value, float scale, float least, float most) {
  return scale > 0 ? std::clamp(std::nearbyint(value / scale), least, most) : 0;
}

void encode(const float* w, float low, float high, Int8Block& block) {
  block.scale = rounded(std::max(-low, high) / 127, true);
  for (int64_t i = 0; i < block_elements; ++i)
    block.q[i] = static_cast<int8_t>(step_number(w[i], wide(block.scale), -127, 127));
}

void encode(const float* w, float low, float high, Int4Block& block) {
  block.minimum = rounded(low, false);
  const float minimum = wide(block.minimum);
  block.scale = rounded((high - minimum) / 15, true);
  const auto q = [&](int64_t i) {
    return static_cast<unsigned>(step_number(w[i] - minimum, wide(block.scale), 0, 15));
  };
  for (int64_t i = 0; i < block_elements; i += 2) block.q[i / 2] = static_cast<uint8_t>(q(i) | q(i + 1) << 4);
}

/// A row of fp32 or bf16 elements; returns whether all are finite.
template <typename T, typename Block>
bool encode_row(const T* row, int64_t depth, Block* out) {
  for (int64_t begin = 0; begin < depth; begin += block_elements, ++out) {
    const int64_t num = std::min(block_elements, depth - begin);
    float w[block_elements] = {};
    std::copy_n(row + begin, num, w);
    const auto [low, high] = std::minmax_element(w, w + num);
    if (!std::all_of(w, w + num, [](float value) { return std::isfinite(value); })) return false;
    encode(w, *low, *high, *out);
  }
  return true;
}

template <typename T, typename Block>
bool encode_rows(const at::Tensor& rows, std::byte* out) {
  const int64_t depth = rows.size(1), bytes = (depth + block_elements - 1) / block_elements * sizeof(Block);
  const T* in = rows.const_data_ptr<T>();
  std::atomic<bool> finite = true;
  parallel_rows(rows.size(0), depth, [&, in](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      if (!encode_row(in + n * depth, depth, reinterpret_cast<Block*>(out + n * bytes))) finite = false;
    }
  });
  return finite;
}

template <typename Block>
bool encode_rows_of(const at::Tensor& rows, std::byte* out) {
  return rows.scalar_type() == at::kFloat ? encode_rows<float, Block>(rows, out)
                                          : encode_rows<at::BFloat16, Block>(rows, out);
}

FARSKIP_INLINE inline void decode(const Int8Block& block, float* out) {
  const float scale = wide(block.scale);
  for (int64_t i = 0; i < block_elements; ++i) out[i] = scale * static_cast<float>(block.q[i]);
}

FARSKIP_INLINE inline void decode(const Int4Block& block, float* out) {
  const float scale = wide(block.scale), minimum = wide(block.minimum);
  for (int64_t i = 0; i < block_elements; ++i)  // the product is exact, so that fusing it with the sum changes nothing
    out[i] = minimum + scale * static_cast<float>(block.q[i / 2] >> (i % 2 * 4) & 0xF);
}

template <typename Block>
void decode_blocks(const std::byte* row, int64_t depth, float* out) {
  const auto* block = reinterpret_cast<const Block*>(row);
  for_machine(0, depth / block_elements, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t b = begin; b < end; ++b) decode(block[b], out + b * block_elements);
  });
  const int64_t rest = depth % block_elements;
  if (rest == 0) return;
  float last[block_elements];
  decode(block[depth / block_elements], last);
  std::copy_n(last, rest, out + depth - rest);
}

}  // namespace

WeightFormat format_of(at::ScalarType type) {
  if (type == at::kFloat) return WeightFormat::fp32;
  if (type == at::kBFloat16) return WeightFormat::bf16;
  fail("weights of type {} have no products for inference; convert the model to float32 or bfloat16",
       c10::toString(type));
}

int64_t row_bytes(WeightFormat format, int64_t depth) {
  const int64_t num_blocks = (depth + block_elements - 1) / block_elements;
  switch (format) {
    case WeightFormat::fp32:
      return depth * 4;
    case WeightFormat::bf16:
      return depth * 2;
    case WeightFormat::int8:
      return num_blocks * static_cast<int64_t>(sizeof(Int8Block));
    case WeightFormat::int4:
      return num_blocks * static_cast<int64_t>(sizeof(Int4Block));
  }
  return 0;
}

void quantize(const at::Tensor& rows, WeightFormat format, std::byte* out) {
  FARSKIP_CHECK(rows.dim() == 2 && (format == WeightFormat::int8 || format == WeightFormat::int4));
  format_of(rows.scalar_type());
  const at::Tensor dense = rows.detach().contiguous();
  const bool finite =
      format == WeightFormat::int8 ? encode_rows_of<Int8Block>(dense, out) : encode_rows_of<Int4Block>(dense, out);
  if (!finite) fail("a weight with elements that are not finite cannot be quantised; load it in its own type");
}

void decode_row(WeightFormat format, const std::byte* row, int64_t depth, float* out) {
  switch (format) {
    case WeightFormat::fp32:
      std::memcpy(out, row, depth * sizeof(float));
      break;
    case WeightFormat::bf16:
      for_machine(0, depth,
                  [=, in = reinterpret_cast<const at::BFloat16*>(row)](int64_t begin, int64_t end) FARSKIP_INLINE {
                    for (int64_t k = begin; k < end; ++k) out[k] = wide(in[k]);
                  });
      break;
    case WeightFormat::int8:
      return decode_blocks<Int8Block>(row, depth, out);
    case WeightFormat::int4:
      return decode_blocks<Int4Block>(row, depth, out);
  }
}

}  // namespace farskip::nn
