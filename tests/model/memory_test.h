#pragma once
// A bound on memory, as a death test: the process ends with it, so that nobody else has used its memory.

#include <ATen/ATen.h>
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "base/process_memory.h"

namespace farskip::testing {

/// Ends the process: with 0 where the peak of its resident memory during `action` lies between the bounds above what it
/// had before.
[[noreturn]] inline void expect_memory(int64_t low, int64_t high, const std::function<void()>& action) {
  at::zeros({8}).add_(1);  // what libtorch takes once
  ::malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew (man proc)
  const int64_t before = resident_bytes();
  action();
  const int64_t took = peak_resident_bytes() - before;
  std::fprintf(stderr, "%.1f MiB\n", static_cast<double>(took) / (1 << 20));
  std::exit(took >= low && took <= high ? 0 : 1);
}

}  // namespace farskip::testing
