#include "transport/device.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "base/error.h"
#ifdef USE_C10D_NCCL  // a wheel for devices; all but one function is in every wheel
#include <ATen/cuda/Sleep.h>
#endif

namespace farskip {
namespace {

class StreamEvent final : public DeviceEvent {
 public:
  explicit StreamEvent(const c10::Stream& stream) : event_(stream.device_type(), c10::EventFlag::BACKEND_DEFAULT) {
    event_.record(stream);
  }
  bool reached() override { return event_.query(); }
  void synchronize() override { event_.synchronize(); }
  double us_since(const DeviceEvent& earlier) const override {
    return 1e3 * static_cast<const StreamEvent&>(earlier).event_.elapsedTime(event_);
  }
  void block(const c10::Stream& stream) const { event_.block(stream); }

 private:
  c10::Event event_;
};

/// Keeps one thread of the device busy on the current stream.
void spin(int64_t cycles) {
#ifdef USE_C10D_NCCL
  at::cuda::sleep(cycles);
#else
  fail("an emulated link on a device needs a wheel for CUDA or ROCm ({} cycles)", cycles);
#endif
}

class StreamLane final : public DeviceLane {
 public:
  explicit StreamLane(c10::Device device)
      : device_(device.type()),
        stream_(device_.getStreamFromGlobalPool(device.has_index() ? device : device_.getDevice(),
                                                /*isHighPriority=*/true)) {}

  void run(const std::function<void()>& issue) override {
    const c10::StreamGuard guard(stream_);
    issue();
  }
  std::shared_ptr<DeviceEvent> record() override { return std::make_shared<StreamEvent>(current()); }
  void wait(const DeviceEvent& event) override { static_cast<const StreamEvent&>(event).block(current()); }
  void pause(double us) override {
    if (cycles_per_us_ == 0) cycles_per_us_ = measure_clock();
    spin(static_cast<int64_t>(us * cycles_per_us_));
  }
  void keep(const at::Tensor& tensor) override {
    if (tensor.defined()) device_.recordDataPtrOnStream(tensor.storage().data_ptr(), current());
  }

 private:
  c10::Stream current() const { return device_.getStream(stream_.device()); }

  double measure_clock() {
    constexpr int64_t kCycles = 20'000'000;  // about 10 ms
    spin(kCycles);                           // until the clock has left its idle rate
    const StreamEvent begin(current());
    spin(kCycles);
    StreamEvent end(current());
    end.synchronize();
    return static_cast<double>(kCycles) / end.us_since(begin);
  }

  c10::impl::VirtualGuardImpl device_;
  c10::Stream stream_;
  double cycles_per_us_ = 0;
};

}  // namespace

std::unique_ptr<DeviceLane> make_device_lane(at::Device device) {
  if (device.is_cpu() || !c10::impl::hasDeviceGuardImpl(device.type()))
    fail("no streams on {}: this libtorch was built without that device; install a wheel with it, or use the CPU",
         device.str());
  return std::make_unique<StreamLane>(device);
}

}  // namespace farskip
