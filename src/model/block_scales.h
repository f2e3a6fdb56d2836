#pragma once
// Block-scaled 8-bit weights as DeepSeek-V3 publishes them (arXiv 2412.19437, 3.3): a matrix in F8_E4M3 and, beside it,
// one fp32 factor for each block of (usually) 128 x 128 elements, NAME_scale_inv.

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/safetensors.h"

namespace farskip {

/// The tensor that holds the factors of `weight`.
std::string scale_name(const std::string& weight);

/// Whether `name` is a tensor in F8_E4M3.
bool is_block_scaled(const SafetensorsReader& reader, const std::string& name);

/// Whether `name` holds the factors of another tensor that is in F8_E4M3.
bool is_block_scale(const SafetensorsReader& reader, const std::string& name);

/// What hinders dequantize() from reading `weight`, a tensor of the reader with dtype F8_E4M3, as a sentence's end; or
/// nothing. `block`: ModelConfig::weight_block.
std::string scale_problem(const SafetensorsReader& reader, const std::string& weight,
                          const std::vector<int64_t>& block);

/// The tensor as it is stored, or dequantized.
at::Tensor read_weight(const SafetensorsReader& reader, const std::string& name, const std::vector<int64_t>& block);

/// weight [R, C] F8_E4M3 times its factors [ceil(R / block[0]), ceil(C / block[1])], rounded to bf16, as DeepSeek's own
/// conversion does it.
at::Tensor dequantize(const at::Tensor& weight, const at::Tensor& scale, const std::vector<int64_t>& block);

}  // namespace farskip
