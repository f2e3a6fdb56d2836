#include "base/process_memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

namespace farskip {
namespace {

int64_t page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

/// What a step does to the heap: 100 MB in blocks of a megabyte, written and freed.
void use_and_free() {
  std::array<std::unique_ptr<char[]>, 100> blocks;
  for (auto& block : blocks) {
    block = std::make_unique_for_overwrite<char[]>(1'000'000);
    std::memset(block.get(), 1, 1'000'000);
  }
}

/// Ends the process with 0 where the first step alone waits for pages. In a thread, as ranks are.
[[noreturn]] void run_steps() {
  keep_freed_memory();
  int64_t first = 0;
  int64_t later = 0;
  std::thread([&] {
    const int64_t begin = page_faults();
    use_and_free();
    first = page_faults() - begin;
    for (int step = 0; step < 5; ++step) use_and_free();
    later = page_faults() - begin - first;
  }).join();
  std::fprintf(stderr, "%d page faults, then %d\n", static_cast<int>(first), static_cast<int>(later));
  std::_Exit(first > 1000 && later * 10 < first ? 0 : 1);
}

TEST(ProcessMemory, FreedMemoryIsKeptInThreadsAsWell) {
#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "another allocator";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(run_steps(), ::testing::ExitedWithCode(0), "page faults");
}

}  // namespace
}  // namespace farskip
