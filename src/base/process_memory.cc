#include "base/process_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>  // defines __GLIBC__
#include <fstream>
#include <limits>
#include <string>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace farskip {
namespace {

/// Lines are like "VmHWM:     5104 kB".
int64_t status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    int64_t kilobytes = -1;
    if (key == name && status >> kilobytes) return kilobytes * 1024;
    std::getline(status, key);
  }
  return -1;
}

}  // namespace

int64_t resident_bytes() { return status_bytes("VmRSS:"); }
int64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

void release_mapped(const std::byte* begin, size_t num_bytes) {
  if (num_bytes == 0) return;
  // From the page's beginning on: neighbours on pages at the edges can be read again as well.
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const size_t before = reinterpret_cast<uintptr_t>(begin) % page;
  ::madvise(const_cast<std::byte*>(begin) - before, num_bytes + before, MADV_DONTNEED);
}

void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_ARENA_MAX, 1);  // other threads' heaps would be given back whenever they are empty
  mallopt(M_MMAP_MAX, 0);   // no block comes from a mapping of its own
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());  // and the heap is not given back
#endif
}

}  // namespace farskip
