#include "model/block_scales.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace farskip {
namespace {

constexpr std::string_view scale_suffix = "_scale_inv";

int64_t num_blocks(int64_t size, int64_t block) { return (size + block - 1) / block; }

}  // namespace

std::string scale_name(const std::string& weight) { return weight + std::string(scale_suffix); }

bool is_block_scaled(const SafetensorsReader& reader, const std::string& name) {
  return reader.spec(name).dtype == at::kFloat8_e4m3fn;
}

bool is_block_scale(const SafetensorsReader& reader, const std::string& name) {
  if (!name.ends_with(scale_suffix)) return false;
  const std::string weight = name.substr(0, name.size() - scale_suffix.size());
  return reader.contains(weight) && is_block_scaled(reader, weight);
}

at::Tensor read_weight(const SafetensorsReader& reader, const std::string& name, const std::vector<int64_t>& block) {
  if (!is_block_scaled(reader, name)) return reader.tensor(name);
  return dequantize(reader.tensor(name), reader.tensor(scale_name(name)), block);
}

std::string scale_problem(const SafetensorsReader& reader, const std::string& weight,
                          const std::vector<int64_t>& block) {
  const auto& shape = reader.spec(weight).shape;
  if (block.empty() || shape.size() != 2) {
    return "convert the checkpoint to BF16 first: only matrices with quant_method fp8 and a weight_block_size in "
           "config.json's quantization_config are read";
  }
  const std::string name = scale_name(weight);
  if (!reader.contains(name)) return fmt::format("without {}", name);
  const TensorSpec& scale = reader.spec(name);
  const std::vector<int64_t> expected = {num_blocks(shape[0], block[0]), num_blocks(shape[1], block[1])};
  if (scale.dtype == at::kFloat && scale.shape == expected) return "";
  return fmt::format("{} is {} {}, blocks of {} need F32 {}", name, safetensors_dtype(scale.dtype),
                     shape_text(scale.shape), shape_text(block), shape_text(expected));
}

at::Tensor dequantize(const at::Tensor& weight, const at::Tensor& scale, const std::vector<int64_t>& block) {
  const int64_t num_rows = weight.size(0), num_columns = weight.size(1);
  const at::Tensor result = at::empty({num_rows, num_columns}, weight.options().dtype(at::kBFloat16));
  const at::Tensor wide_scale = scale.repeat_interleave(block[1], 1).narrow(1, 0, num_columns);
  for (int64_t first = 0; first < num_rows; first += block[0]) {  // no fp32 copy of the whole
    const int64_t num = std::min(block[0], num_rows - first);
    result.narrow(0, first, num).copy_(weight.narrow(0, first, num).to(at::kFloat).mul_(wide_scale[first / block[0]]));
  }
  return result;
}

}  // namespace farskip
