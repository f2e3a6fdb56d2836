#include "model/block_scales.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

namespace farskip {
namespace {

int64_t num_blocks(int64_t size, int64_t block) { return (size + block - 1) / block; }

}  // namespace

std::string scale_name(const std::string& weight) { return weight + "_scale_inv"; }

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
