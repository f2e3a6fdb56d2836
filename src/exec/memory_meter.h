#pragma once
// How much CPU memory tensors hold, counted at their allocation.

#include <cstdint>
#include <memory>

namespace farskip {

/// Counts the bytes of CPU tensors that this thread (and its backward passes) allocates and frees between construction
/// and destruction. What other threads do with them is not seen, unless they join. Meters of one thread do not nest.
class MemoryMeter {
 public:
  MemoryMeter();
  /// What this thread does is counted with what the other meter's thread does: ranks that are threads free each
  /// other's tensors.
  explicit MemoryMeter(const MemoryMeter* joined);
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  int64_t live_bytes() const;  ///< allocated and not yet freed
  int64_t peak_bytes() const;  ///< the most there were at once

 private:
  struct Counter;
  struct Installed;
  std::shared_ptr<Counter> counter_;
  std::unique_ptr<Installed> installed_;
};

}  // namespace farskip
