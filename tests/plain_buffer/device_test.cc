// Loopback on a device, as far as the order of its work goes: the device is an imitation (fake_device.h).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <future>

#include "base/error.h"
#include "tests/base/error_of.h"
#include "tests/plain_buffer/fake_device.h"
#include "transport/clock.h"
#include "transport/emulated_link.h"
#include "transport/loopback.h"
#include "transport/probes.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using testing::current_stream;
using testing::enqueue_computation;
using testing::error_of;
using ::testing::HasSubstr;
using testing::synchronize;

constexpr int kDeviceRanks = 3;
const std::vector<int64_t> kOne(kDeviceRanks, 1);
constexpr at::Device kDevice{0};

at::Tensor on_device(std::vector<int64_t> shape, double value, at::ScalarType type = at::kFloat) {
  return at::full(std::move(shape), value, {type, kDevice});
}

/// The only value of a buffer when the current stream has come so far; NaN where there are several.
float settled_value(const at::Tensor& buffer) {
  synchronize();
  const auto* begin = buffer.data_ptr<float>();
  for (int64_t i = 1; i < buffer.numel(); ++i)
    if (begin[i] != begin[0]) return std::nanf("");
  return begin[0];
}

TEST(DeviceLoopback, OrdersBuffersByEventsAlone) {
  run_ranks(kDeviceRanks, [&](World& world) {
    const auto group = world.all();
    const auto side = world.all("side");  // on the same lane
    const auto rows = on_device({kDeviceRanks, 64}, 0);
    for (int step = 0; step < 10; ++step) {
      rows.fill_(step + world.rank());
      auto counted = side->all_reduce(on_device({10}, 1), "count");
      const auto got = group->all_to_all(rows, kOne, kOne, "rows").await();
      rows.fill_(1 + step * world.rank());  // enqueued behind the await
      const auto sum = group->all_reduce(rows, "sum").await();
      rows.fill_(world.rank());
      const auto part = group->reduce_scatter(rows, "part").await();
      const auto root = group->broadcast(rows, step % kDeviceRanks, "root").await();
      const auto all = group->all_gather(rows.narrow(0, 0, world.rank()), "all", {0, 1, 2}).await();
      rows.fill_(-1);
      for (int r = 0; r < kDeviceRanks; ++r) ASSERT_EQ(settled_value(got.narrow(0, r, 1)), step + r);
      ASSERT_EQ(settled_value(sum), kDeviceRanks + 3 * step);
      ASSERT_EQ(settled_value(part), 3);
      ASSERT_EQ(settled_value(root), step % kDeviceRanks);
      ASSERT_EQ(settled_value(all.narrow(0, 1, 2)), 2);
      ASSERT_EQ(settled_value(counted.await()), kDeviceRanks);
      group->barrier();
    }
  });
}

TEST(DeviceLoopback, GivesTheBitsOfTheCpu) {
  run_ranks(kDeviceRanks, [&](World& world) {
    const auto group = world.all();
    const double term = 1 + 0.37 * world.rank();
    const auto host = group->all_reduce(at::full({1000}, term, at::kBFloat16), "host").await();
    const auto device = group->all_reduce(on_device({1000}, term, at::kBFloat16), "device").await();
    synchronize();
    EXPECT_EQ(std::memcmp(host.data_ptr(), device.data_ptr(), host.nbytes()), 0);
  });
}

TEST(DeviceLoopback, AwaitReturnsBeforeAnythingIsDone) {
  run_ranks(kDeviceRanks, [&](World& world) {
    const auto group = world.all();
    std::promise<void> gate;
    current_stream().enqueue([open = gate.get_future().share()] { open.wait(); });  // a long computation
    auto pending = group->all_reduce(on_device({100}, world.rank()), "sum");
    CollectiveReport report;
    const auto sum = pending.await(&report);
    group->barrier();  // every host has come so far, although no device has
    gate.set_value();
    EXPECT_EQ(settled_value(sum), 3);
    settle(report);
    EXPECT_GE(report.started_us, report.launched_us);
    EXPECT_GE(report.completed_us, report.started_us);
    EXPECT_GE(report.waited_us, 0);
  });
}

TEST(DeviceLoopback, IsReadyWhenTheDeviceIs) {
  run_ranks(kDeviceRanks, [&](World& world) {
    const auto group = world.all();
    std::promise<void> gate;
    current_stream().enqueue([open = gate.get_future().share()] { open.wait(); });
    auto pending = group->all_gather(on_device({1, 5}, 1), "all");
    group->barrier();
    EXPECT_FALSE(pending.ready());
    group->barrier();
    gate.set_value();
    while (!pending.ready()) sleep_until_us(now_us() + 100);
    EXPECT_EQ(settled_value(pending.await()), 1);
  });
}

TEST(DeviceLoopback, ALinkIsAPauseOfTheLane) {
  auto worlds = make_loopback(kDeviceRanks);
  for (auto& world : worlds) world = with_link(std::move(world), std::make_shared<Link>(LinkSpec{100e3, 0}));
  run_ranks(worlds, [&](World& world) {
    const auto group = world.all();
    CollectiveReport hidden, exposed;
    auto pending = group->all_gather(on_device({1, 5}, 1), "hidden");
    enqueue_computation(500e3);
    pending.await(&hidden);
    const double begin_us = now_us();
    group->all_gather(on_device({1, 5}, 1), "exposed").await(&exposed);
    EXPECT_LT(now_us() - begin_us, 400e3) << "the host stood still";
    settle(hidden);
    settle(exposed);
    EXPECT_GE(hidden.completed_us - hidden.launched_us, 100e3);
    EXPECT_LT(hidden.waited_us, 100e3);
    EXPECT_GE(exposed.completed_us - exposed.launched_us, 100e3);
    EXPECT_GE(exposed.waited_us, 50e3);
  });
}

TEST(DeviceLoopback, ErrorsAreThoseOfLoopback) {
  auto late = make_loopback(kDeviceRanks, {.timeout_s = 0.3});
  run_ranks(late, [&](World& world) {
    const auto group = world.all();
    group->barrier();
    if (world.rank() == 2) return sleep_until_us(now_us() + 2e6);
    EXPECT_THAT(error_of([&] { group->all_reduce(on_device({10}, 1), "late").await(); }),
                AllOf(HasSubstr("late"), HasSubstr("rank 2")));
    EXPECT_THAT(error_of([&] { group->all_reduce(on_device({10}, 1), "next").await(); }), HasSubstr("late"));
  });
  auto failing = make_loopback(kDeviceRanks, {.timeout_s = 30});
  failing[1] = with_failure(std::move(failing[1]), {.how = Failure::How::fail, .at = 3});
  run_ranks(failing, [&](World& world) {
    const auto group = world.all();
    EXPECT_THAT(error_of([&] {
                  for (int step = 0; step < 5; ++step)
                    group->all_reduce(on_device({10}, 1), "step" + std::to_string(step)).await();
                }),
                AllOf(HasSubstr("step3"), HasSubstr("rank 1")));
  });
}

TEST(DeviceLoopback, RefusesSeveralDevices) {
  run_ranks(kDeviceRanks, [&](World& world) {
    const auto group = world.all();
    const at::Device own = world.rank() == 0 ? at::kCPU : kDevice;
    EXPECT_THAT(error_of([&] {
                  group->all_reduce(at::full({10}, 1, {at::kFloat, own}), "mixed").await();
                }),
                AllOf(HasSubstr("mixed"), HasSubstr("cpu"), HasSubstr("fake:0")));
  });
  auto worlds = make_loopback(2);
  const auto group = worlds[0]->all();
  group->all_reduce(on_device({10}, 1), "first").abandon();
  EXPECT_THAT(error_of([&] {
                group->all_reduce(at::full({10}, 1, {at::kFloat, at::Device{1}}), "second").await();
              }),
              AllOf(HasSubstr("fake:0"), HasSubstr("fake:1")));
}

}  // namespace
}  // namespace farskip
