#pragma once
// Loopback on a device that all ranks share: whoever launches a collective last gives every rank's part of it to that
// rank's lane. Nothing but peers' launches is waited for by the host; the rest is in the order of events.

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "transport/collective.h"
#include "transport/device_flight.h"

namespace farskip {

/// The lane of one rank, for all its communicators; made when its first tensor comes by. Thread-safe.
class RankLane {
 public:
  /// Throws Error for a second device.
  std::shared_ptr<DeviceLane> on(at::Device device);

 private:
  std::mutex mutex_;
  std::shared_ptr<DeviceLane> lane_;
  at::Device device_ = at::kCPU;
};

/// The device's side of one collective of all its ranks.
class DeviceMeeting {
 public:
  explicit DeviceMeeting(int size) : lanes_(size), launched_(size), completed_(size) {}

  /// `rank` launches: its part waits for what its current stream holds now.
  void post(int rank, std::shared_ptr<DeviceLane> lane);

  /// Issues work(r) on the lane of every rank r, and what ends it: all parts are complete and the rank's own link is
  /// through. REQUIRES: all ranks have posted, one thread at a time for all meetings of these lanes.
  void issue(const std::vector<Collective>& ops, const std::vector<at::Tensor>& results,
             const std::function<void(int)>& work);

  /// REQUIRES: issued, for both.
  bool completed(int rank) const { return completed_[rank]->reached(); }
  void await(int rank, const at::Tensor& result, CollectiveReport& report) const;

 private:
  std::vector<std::shared_ptr<DeviceLane>> lanes_;
  std::vector<std::shared_ptr<DeviceEvent>> launched_;
  std::vector<std::shared_ptr<DeviceEvent>> completed_;
};

}  // namespace farskip
