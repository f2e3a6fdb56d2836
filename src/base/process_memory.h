#pragma once
// How much memory this process has, and has had at most, in its hands, and how it treats what it frees.

#include <cstddef>
#include <cstdint>

namespace farskip {

/// Bytes in RAM, files that are mapped and have been touched included (VmRSS of /proc/self/status); -1 if unknown.
int64_t resident_bytes();
/// The most there ever were (VmHWM). Unlike getrusage it begins anew with exec.
int64_t peak_resident_bytes();

/// Part of a file that is mapped for reading takes no memory of this process until it is looked at again.
void release_mapped(const std::byte* begin, size_t num_bytes);

/// Large blocks that are freed stay with the process instead of going back to the system, so that the next step, which
/// needs the same ones, does not wait for zeroed pages. All threads share one heap from then on. For programs that run
/// steps; call it before the first large allocation and thread. Where the C library is not glibc it does nothing.
void keep_freed_memory();

}  // namespace farskip
