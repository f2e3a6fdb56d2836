#pragma once
// Plain buffers have no gradients.

namespace at {

struct NoGradGuard {
  NoGradGuard() {}
};

}  // namespace at
