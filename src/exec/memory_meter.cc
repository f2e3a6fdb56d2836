#include "exec/memory_meter.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace farskip {

/// libtorch's allocators report to whoever stands in the profiler's slot of the thread. Sizes of what is freed are
/// looked up, so that tensors of before do not count.
struct MemoryMeter::Counter : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void* ptr, int64_t size, size_t /*total*/, size_t /*reserved*/, c10::Device device) override {
    if (!device.is_cpu()) return;
    const std::lock_guard lock(mutex);
    if (size > 0) {
      sizes[ptr] = size;
      live += size;
      peak = std::max(peak, live);
    } else if (const auto found = sizes.find(ptr); found != sizes.end()) {
      live -= found->second;
      sizes.erase(found);
    }
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::mutex mutex;
  std::map<void*, int64_t> sizes;
  int64_t live = 0, peak = 0;
};

struct MemoryMeter::Installed {
  explicit Installed(std::shared_ptr<Counter> counter)
      : guard(c10::DebugInfoKind::PROFILER_STATE, std::move(counter)) {}
  c10::DebugInfoGuard guard;
};

MemoryMeter::MemoryMeter() : counter_(std::make_shared<Counter>()), installed_(std::make_unique<Installed>(counter_)) {}
MemoryMeter::MemoryMeter(const MemoryMeter* joined)
    : counter_(joined->counter_), installed_(std::make_unique<Installed>(counter_)) {}
MemoryMeter::~MemoryMeter() = default;

int64_t MemoryMeter::live_bytes() const { return counter_->live; }
int64_t MemoryMeter::peak_bytes() const { return counter_->peak; }

}  // namespace farskip
