#include "transport/device_meeting.h"

#include "base/error.h"

namespace farskip {

std::shared_ptr<DeviceLane> RankLane::on(at::Device device) {
  const std::lock_guard lock(mutex_);
  if (!lane_) {
    lane_ = make_device_lane(device);
    device_ = device;
  }
  if (device_ != device)
    fail("loopback: a rank communicates from {} and from {}; use one device", device_.str(), device.str());
  return lane_;
}

void DeviceMeeting::post(int rank, std::shared_ptr<DeviceLane> lane) {
  launched_[rank] = lane->record();
  lanes_[rank] = std::move(lane);
}

void DeviceMeeting::issue(const std::vector<Collective>& ops, const std::vector<at::Tensor>& results,
                          const std::function<void(int)>& work) {
  std::vector<std::shared_ptr<DeviceEvent>> moved(lanes_.size());
  for (size_t r = 0; r < lanes_.size(); ++r)
    lanes_[r]->run([&, &lane = *lanes_[r]] {
      for (const auto& launch : launched_) lane.wait(*launch);
      work(static_cast<int>(r));
      moved[r] = lane.record();
      for (const auto& op : ops) lane.keep(op.input);  // of every rank, also of one that gives its handle up
      for (const auto& result : results) lane.keep(result);
    });
  for (size_t r = 0; r < lanes_.size(); ++r)
    lanes_[r]->run([&, &lane = *lanes_[r]] {
      for (const auto& part : moved) lane.wait(*part);
      if (ops[r].pause_us > 0) lane.pause(ops[r].pause_us);
      completed_[r] = lane.record();
    });
}

void DeviceMeeting::await(int rank, const at::Tensor& result, CollectiveReport& report) const {
  await_on_device(*lanes_[rank], {launched_[rank], launched_, completed_[rank]}, result, report);
}

}  // namespace farskip
