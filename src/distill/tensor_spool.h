#pragma once
// Tensors that wait on disk: their memory is the system's to take back.

#include <ATen/core/Tensor.h>

#include <string>

namespace farskip {

class TensorSpool {
 public:
  /// `folder` empty: what is kept stays in memory.
  explicit TensorSpool(std::string folder) : folder_(std::move(folder)) {}

  /// A tensor of the same elements whose memory is a file without a name, which vanishes with it; a tensor that is kept
  /// already is returned as it is. Throws Error where the disk is full.
  at::Tensor keep(const at::Tensor& value);

 private:
  std::string folder_;
};

}  // namespace farskip
