#pragma once
// Streams and events of an accelerator, behind plain functions; nothing here needs its headers.

#include <ATen/ATen.h>

#include <functional>
#include <memory>

#include "transport/pending.h"

namespace farskip {

/// One high-priority stream for the communication of one communicator, and the events that order it.
class DeviceLane {
 public:
  virtual ~DeviceLane() = default;
  /// Enqueues `work` on the lane behind everything that the current stream holds now, and returns at once. Its result
  /// is complete for whoever calls finish(), which makes the then current stream wait without blocking the host.
  /// `failed` says whether the communicator failed.
  virtual std::unique_ptr<InFlight> run(std::function<at::Tensor()> work, std::function<bool()> failed) = 0;
};

/// Throws Error where this build of libtorch has no device backend.
std::unique_ptr<DeviceLane> make_device_lane();

}  // namespace farskip
