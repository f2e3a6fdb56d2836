#pragma once
// Collectives whose completion is an event on a device.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/device.h"
#include "transport/pending.h"

namespace farskip {

/// The events of one collective.
struct DeviceSpan {
  std::shared_ptr<DeviceEvent> launched;               ///< by this rank
  std::vector<std::shared_ptr<DeviceEvent>> everyone;  ///< launches of all ranks, where they are known
  std::shared_ptr<DeviceEvent> completed;
};

/// The await of a collective: the current stream waits for its completion, the host goes on. The report's times come
/// from the events, when it is settled.
void await_on_device(DeviceLane& lane, const DeviceSpan& span, const at::Tensor& result, CollectiveReport& report);

/// Gives `lane` a collective behind everything that the current stream holds now, and then a pause. `failure` is
/// the first error of the communicator, empty while it is sound.
std::unique_ptr<InFlight> launch_on_lane(std::shared_ptr<DeviceLane> lane, const std::function<at::Tensor()>& work,
                                         double pause_us, std::function<std::string()> failure);

}  // namespace farskip
