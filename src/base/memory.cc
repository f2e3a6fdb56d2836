#include "base/memory.h"

#include <cstdlib>  // defines __GLIBC__

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <limits>

namespace farskip {

void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_MAX, 0);                                      // no block comes from a mapping of its own
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());  // and the heap is not given back
#endif
}

}  // namespace farskip
