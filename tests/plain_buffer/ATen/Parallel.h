#pragma once
// Plain buffers are worked on by the calling thread alone.

namespace at {

inline int get_num_threads() { return 1; }
inline void set_num_threads(int) {}

}  // namespace at
