#pragma once
// libtorch's exception, as src/transport sees it.

#include <stdexcept>

namespace c10 {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  const char* what_without_backtrace() const noexcept { return what(); }
};

}  // namespace c10
