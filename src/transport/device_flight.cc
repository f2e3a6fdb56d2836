#include "transport/device_flight.h"

#include <algorithm>

#include "base/error.h"

namespace farskip {
namespace {

class LaneFlight final : public InFlight {
 public:
  LaneFlight(std::shared_ptr<DeviceLane> lane, DeviceSpan span, at::Tensor result, std::function<std::string()> failure)
      : lane_(std::move(lane)), span_(std::move(span)), result_(std::move(result)), failure_(std::move(failure)) {}

  at::Tensor finish(CollectiveReport& report) override {
    if (const auto failure = failure_(); !failure.empty()) throw Error(failure);
    await_on_device(*lane_, span_, result_, report);
    return result_;
  }
  bool ready() override { return span_.completed->reached(); }
  bool failed() override { return !failure_().empty(); }

 private:
  std::shared_ptr<DeviceLane> lane_;
  DeviceSpan span_;
  at::Tensor result_;
  std::function<std::string()> failure_;
};

}  // namespace

void await_on_device(DeviceLane& lane, const DeviceSpan& span, const at::Tensor& result, CollectiveReport& report) {
  const auto asked = lane.record();
  lane.wait(*span.completed);
  const auto resumed = lane.record();
  lane.keep(result);
  report.resolve = [span, asked, resumed](CollectiveReport& settled) {
    resumed->synchronize();
    const auto at_us = [&](const DeviceEvent& event) { return settled.launched_us + event.us_since(*span.launched); };
    settled.started_us = settled.launched_us;
    for (const auto& launch : span.everyone) settled.started_us = std::max(settled.started_us, at_us(*launch));
    settled.completed_us = at_us(*span.completed);
    settled.awaited_us = at_us(*asked);
    settled.waited_us = resumed->us_since(*asked);
  };
}

std::unique_ptr<InFlight> launch_on_lane(std::shared_ptr<DeviceLane> lane, const std::function<at::Tensor()>& work,
                                         double pause_us, std::function<std::string()> failure) {
  DeviceSpan span;
  span.launched = lane->record();
  at::Tensor result;
  lane->run([&] {
    lane->wait(*span.launched);
    result = work();
    if (pause_us > 0) lane->pause(pause_us);
    span.completed = lane->record();
  });
  return std::make_unique<LaneFlight>(std::move(lane), std::move(span), std::move(result), std::move(failure));
}

}  // namespace farskip
