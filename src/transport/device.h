#pragma once
// Streams and events of an accelerator as far as transports need them; nothing here needs its headers, and tests of the
// order of events put an imitation in their place.

#include <ATen/ATen.h>

#include <functional>
#include <memory>

namespace farskip {

/// A moment in a stream: what the stream held when it was recorded is done.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  virtual bool reached() = 0;
  /// Blocks the host until the event is reached.
  virtual void synchronize() = 0;
  /// Device time from `earlier` to this; negative when that came later. REQUIRES: both reached, on one device.
  virtual double us_since(const DeviceEvent& earlier) const = 0;
};

/// One high-priority stream for communication. The current stream is the calling thread's, on the lane's device. Any
/// thread may use a lane; run() and pause() one thread at a time.
class DeviceLane {
 public:
  virtual ~DeviceLane() = default;
  /// Calls `issue` at once, with the lane as the current stream: what it issues is carried out on the lane.
  virtual void run(const std::function<void()>& issue) = 0;
  /// Marks the end of what the current stream holds now.
  virtual std::shared_ptr<DeviceEvent> record() = 0;
  /// What the current stream is given from now on waits for `event`; the host does not.
  virtual void wait(const DeviceEvent& event) = 0;
  /// The current stream does nothing for so long. The first call blocks the host for some 20 ms, to measure the clock.
  virtual void pause(double us) = 0;
  /// The memory of `tensor` is not used for anything else before what the current stream holds when it is freed is
  /// done.
  virtual void keep(const at::Tensor& tensor) = 0;
};

/// REQUIRES: `device` is no CPU; without an index it is the current one. Throws Error where this libtorch has no such
/// backend.
std::unique_ptr<DeviceLane> make_device_lane(at::Device device);

}  // namespace farskip
