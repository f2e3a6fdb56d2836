#include "nn/weight_format.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "nn/for_machine.h"

namespace farskip::nn {
namespace {

static_assert(sizeof(Int4Block) == 20);

int64_t padded(int64_t depth) { return (depth + block_elements - 1) / block_elements * block_elements; }

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

void encode_int8(const float* w, int64_t depth, std::byte* out) {
  float most = 0;
  for (int64_t k = 0; k < depth; ++k) most = std::max(most, std::abs(w[k]));
  const float scale = wide(rounded(most / 127, true));
  auto* q = reinterpret_cast<int8_t*>(out);
  for (int64_t k = 0; k < depth; ++k) q[k] = static_cast<int8_t>(step_number(w[k], scale, -127, 127));
  std::fill(q + depth, q + padded(depth), 0);
  std::memcpy(out + padded(depth), &scale, sizeof(scale));
}

void encode_block(const float* w, int64_t num, Int4Block& block) {
  const auto [low, high] = std::minmax_element(w, w + num);
  block.minimum = rounded(*low, false);
  const float minimum = wide(block.minimum);
  block.scale = rounded((*high - minimum) / 15, true);
  const auto q = [&](int64_t i) {
    return i < num ? static_cast<unsigned>(step_number(w[i] - minimum, wide(block.scale), 0, 15)) : 0U;
  };
  for (int64_t i = 0; i < block_elements; i += 2) block.q[i / 2] = static_cast<uint8_t>(q(i) | q(i + 1) << 4);
}

void encode_int4(const float* w, int64_t depth, std::byte* out) {
  auto* block = reinterpret_cast<Int4Block*>(out);
  for (int64_t begin = 0; begin < depth; begin += block_elements)
    encode_block(w + begin, std::min(block_elements, depth - begin), *block++);
}

/// Returns whether all elements are finite.
template <typename T>
bool encode_rows(const at::Tensor& rows, WeightFormat format, std::byte* out) {
  const int64_t depth = rows.size(1), bytes = row_bytes(format, depth);
  const T* in = rows.const_data_ptr<T>();
  std::atomic<bool> finite = true;
  at::parallel_for(0, rows.size(0), 8, [&](int64_t begin, int64_t end) {
    std::vector<float> w(depth);
    for (int64_t n = begin; n < end; ++n) {
      std::copy_n(in + n * depth, depth, w.begin());
      if (std::all_of(w.begin(), w.end(), [](float value) { return std::isfinite(value); })) {
        (format == WeightFormat::int8 ? encode_int8 : encode_int4)(w.data(), depth, out + n * bytes);
      } else {
        finite = false;
      }
    }
  });
  return finite;
}

FARSKIP_INLINE inline void decode(const Int4Block& block, float* out) {
  const float scale = wide(block.scale), minimum = wide(block.minimum);
  for (int64_t i = 0; i < block_elements; ++i)  // the product is exact, so that fusing it with the sum changes nothing
    out[i] = minimum + scale * static_cast<float>(block.q[i / 2] >> (i % 2 * 4) & 0xF);
}

void decode_int4(const std::byte* row, int64_t depth, float* out) {
  const auto* block = reinterpret_cast<const Int4Block*>(row);
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
  switch (format) {
    case WeightFormat::fp32:
      return depth * 4;
    case WeightFormat::bf16:
      return depth * 2;
    case WeightFormat::int8:
      return padded(depth) + int8_tail_bytes;
    case WeightFormat::int4:
      return padded(depth) / block_elements * static_cast<int64_t>(sizeof(Int4Block));
  }
  return 0;
}

float scale_of_row(const std::byte* row, int64_t depth) {
  float scale;
  std::memcpy(&scale, row + padded(depth), sizeof(scale));
  return scale;
}

void quantize(const at::Tensor& rows, WeightFormat format, std::byte* out) {
  FARSKIP_CHECK(rows.dim() == 2 && (format == WeightFormat::int8 || format == WeightFormat::int4));
  const at::Tensor dense = rows.detach().contiguous();
  const bool finite = format_of(dense.scalar_type()) == WeightFormat::fp32
                          ? encode_rows<float>(dense, format, out)
                          : encode_rows<at::BFloat16>(dense, format, out);
  if (!finite) fail("a weight with elements that are not finite cannot be quantised; load it in its own type");
}

void decode_row(WeightFormat format, const std::byte* row, int64_t depth, float* out) {
  switch (format) {
    case WeightFormat::fp32:
      std::memcpy(out, row, depth * sizeof(float));
      break;
    case WeightFormat::bf16:
      for_machine(0, depth,
                  [=, w = reinterpret_cast<const at::BFloat16*>(row)](int64_t begin, int64_t end) FARSKIP_INLINE {
                    for (int64_t k = begin; k < end; ++k) out[k] = wide(w[k]);
                  });
      break;
    case WeightFormat::int8:
      for_machine(0, depth,
                  [=, q = reinterpret_cast<const int8_t*>(row), scale = scale_of_row(row, depth)](
                      int64_t begin, int64_t end) FARSKIP_INLINE {
                    for (int64_t k = begin; k < end; ++k) out[k] = scale * static_cast<float>(q[k]);
                  });
      break;
    case WeightFormat::int4:
      return decode_int4(row, depth, out);
  }
}

}  // namespace farskip::nn
