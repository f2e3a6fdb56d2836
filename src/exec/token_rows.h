#pragma once
// Several tensors about the same tokens as one message.

#include <ATen/core/Tensor.h>

#include <vector>

namespace farskip {

/// Parts [T, n_i] of any types -> [T, sum of their rows' bytes] uint8.
at::Tensor pack_tokens(const std::vector<at::Tensor>& parts);

/// The inverse, for any number of tokens; widths and types are those of `like`.
std::vector<at::Tensor> unpack_tokens(const at::Tensor& packed, const std::vector<at::Tensor>& like);

}  // namespace farskip
