#include "transport/device.h"

#include "base/error.h"

#ifdef USE_C10D_NCCL
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "transport/clock.h"

namespace farskip {
namespace {

using at::cuda::CUDAEvent;
using c10::cuda::CUDAStream;
using c10::cuda::CUDAStreamGuard;

/// The events of one collective, which outlive it until its report is settled.
struct Events {
  CUDAEvent launched{cudaEventDefault};
  CUDAEvent completed{cudaEventDefault};
  CUDAEvent before_wait{cudaEventDefault};
  CUDAEvent after_wait{cudaEventDefault};
};

class DeviceFlight final : public InFlight {
 public:
  DeviceFlight(at::Tensor result, std::shared_ptr<Events> events, std::function<bool()> failed)
      : result_(std::move(result)), events_(std::move(events)), failed_(std::move(failed)) {}

  at::Tensor finish(CollectiveReport& report) override {
    const auto current = c10::cuda::getCurrentCUDAStream();
    events_->before_wait.record(current);
    events_->completed.block(current);
    events_->after_wait.record(current);
    if (result_.defined()) result_.record_stream(current);
    report.resolve = [events = events_](CollectiveReport& settled) {
      events->after_wait.synchronize();
      const auto us = [](const CUDAEvent& from, const CUDAEvent& to) { return 1e3 * from.elapsed_time(to); };
      settled.completed_us = settled.launched_us + us(events->launched, events->completed);
      settled.awaited_us = settled.launched_us + us(events->launched, events->before_wait);
      settled.waited_us = us(events->before_wait, events->after_wait);
    };
    return result_;
  }
  bool ready() override { return events_->completed.query(); }
  bool failed() override { return failed_(); }

 private:
  at::Tensor result_;
  std::shared_ptr<Events> events_;
  std::function<bool()> failed_;
};

class CudaLane final : public DeviceLane {
 public:
  CudaLane() : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true)) {}

  std::unique_ptr<InFlight> run(std::function<at::Tensor()> work, std::function<bool()> failed) override {
    const auto events = std::make_shared<Events>();
    events->launched.record(c10::cuda::getCurrentCUDAStream());
    events->launched.block(stream_);
    const CUDAStreamGuard guard(stream_);
    auto result = work();
    events->completed.record(stream_);
    return std::make_unique<DeviceFlight>(std::move(result), events, std::move(failed));
  }

 private:
  CUDAStream stream_;
};

}  // namespace

std::unique_ptr<DeviceLane> make_device_lane() { return std::make_unique<CudaLane>(); }

}  // namespace farskip

#else

namespace farskip {

std::unique_ptr<DeviceLane> make_device_lane() {
  fail("this libtorch was built without CUDA or ROCm; install a wheel with device support, or use backend gloo");
}

}  // namespace farskip

#endif
