#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace farskip {

void broken_invariant(const char* expression, const char* file, int line, const std::string& detail) {
  std::fprintf(stderr, "farskip: broken invariant at %s:%d: %s%s%s\n", file, line, expression,
               detail.empty() ? "" : ": ", detail.c_str());
  std::abort();
}

}  // namespace farskip
