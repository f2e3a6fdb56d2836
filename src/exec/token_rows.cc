#include "exec/token_rows.h"

#include <ATen/ATen.h>

namespace farskip {

at::Tensor pack_tokens(const std::vector<at::Tensor>& parts) {
  std::vector<at::Tensor> bytes;
  for (const at::Tensor& part : parts) bytes.push_back(part.contiguous().view(at::kByte));
  return at::cat(bytes, 1);
}

std::vector<at::Tensor> unpack_tokens(const at::Tensor& packed, const std::vector<at::Tensor>& like) {
  std::vector<at::Tensor> parts;
  int64_t first = 0;
  for (const at::Tensor& part : like) {
    const int64_t width = part.size(1) * part.element_size();
    // A fresh tensor, so that elements lie where their type may.
    const at::Tensor bytes = packed.narrow(1, first, width).clone(at::MemoryFormat::Contiguous);
    parts.push_back(bytes.view(part.scalar_type()));
    first += width;
  }
  return parts;
}

}  // namespace farskip
