#pragma once
// How this process treats the memory it frees.

namespace farskip {

/// Large blocks that are freed stay with the process instead of going back to the system, so that the next step, which
/// needs the same ones, does not wait for zeroed pages. For programs that run training steps; call it before the first
/// large allocation. Where the C library is not glibc it does nothing.
void keep_freed_memory();

}  // namespace farskip
