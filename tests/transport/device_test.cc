// Loopback on a real device, shared by all ranks. tests/plain_buffer/device_test.cc has the order of events everywhere.

#include "transport/device.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include "ranks.h"
#include "transport/clock.h"
#include "transport/emulated_link.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::noise;
using testing::same_bits;

constexpr int kRanks = 2;

TEST(DeviceLane, NeedsADevice) {
  EXPECT_THAT(error_of([] { make_device_lane(at::kCPU); }), HasSubstr("cpu"));
  if (at::hasCUDA()) return;
  EXPECT_THAT(error_of([] { make_device_lane(at::kCUDA); }), HasSubstr("cuda"));
}

class OnDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "this libtorch or this machine has no CUDA or ROCm device";
  }

  /// run_ranks, each rank with a stream of its own for its computation.
  void run(Worlds& worlds, const std::function<void(World&)>& body) {
    run_ranks(worlds, [&](World& world) {
      const c10::impl::VirtualGuardImpl device(at::kCUDA);
      device.exchangeStream(device.getStreamFromGlobalPool(device.getDevice()));
      body(world);
    });
  }
  /// Computation that keeps the current stream busy for some 100 ms or more.
  at::Tensor compute() const {
    auto a = at::ones({4096, 4096}, at::TensorOptions(at::kCUDA).dtype(at::kFloat));
    auto b = a;
    for (int i = 0; i < 60; ++i) b = at::matmul(a, b) * 1e-4;
    return b;
  }
};

TEST_F(OnDevice, GivesTheBitsOfTheCpu) {
  auto worlds = make_loopback(kRanks);
  run(worlds, [&](World& world) {
    const auto group = world.all();
    const int r = world.rank();
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto host = noise({64, 33}, r, type);
      const auto device = host.to(at::kCUDA);
      const std::vector<int64_t> send = {20 + 4 * r, 44 - 4 * r};
      const std::vector<int64_t> recv = r == 0 ? std::vector<int64_t>{20, 24} : std::vector<int64_t>{44, 40};
      const auto both = [&](const char* name, const std::function<at::Tensor(const at::Tensor&)>& collective) {
        EXPECT_TRUE(same_bits(collective(device).to(at::kCPU), collective(host))) << name << " on rank " << r;
      };
      both("rows", [&](const at::Tensor& x) { return group->all_to_all(x, send, recv, "rows").await(); });
      both("sum", [&](const at::Tensor& x) { return group->all_reduce(x, "sum").await(); });
      both("part", [&](const at::Tensor& x) { return group->reduce_scatter(x, "part").await(); });
      both("all", [&](const at::Tensor& x) { return group->all_gather(x, "all").await(); });
      both("root", [&](const at::Tensor& x) { return group->broadcast(x, 1, "root").await(); });
    }
  });
}

TEST_F(OnDevice, WaitsForTheStreamAndNotOnTheHost) {
  auto worlds = make_loopback(kRanks);
  for (auto& world : worlds) world = with_link(std::move(world), std::make_shared<Link>(LinkSpec{20e3, 0}));
  run(worlds, [&](World& world) {
    const auto group = world.all();
    const auto rows = at::full({1, 5}, world.rank(), at::TensorOptions(at::kCUDA).dtype(at::kFloat));
    group->all_gather(rows, "first").await();  // the clock of the link is measured
    compute().sum().item();                    // and the libraries are loaded
    for (int step = 0; step < 3; ++step) {
      CollectiveReport hidden, exposed;
      auto pending = group->all_gather(rows, "hidden");
      const auto computed = compute();
      const auto all = pending.await(&hidden);
      const auto last = group->all_gather(computed.narrow(0, 0, 1), "exposed").await(&exposed);
      EXPECT_EQ(all.sum().item<float>(), 1) << "only here does the host wait";
      settle(hidden);
      settle(exposed);
      EXPECT_GE(hidden.completed_us - hidden.launched_us, 15e3);
      EXPECT_LT(hidden.waited_us, 5e3);
      EXPECT_GE(exposed.waited_us, 15e3);
      EXPECT_LT(hidden.awaited_us, exposed.completed_us);
    }
  });
}

TEST_F(OnDevice, MemoryIsNotReusedTooEarly) {
  auto worlds = make_loopback(kRanks);
  run(worlds, [&](World& world) {
    const auto group = world.all();
    for (int step = 0; step < 100; ++step) {
      auto pending = group->all_reduce(at::full({1 << 20}, step, at::TensorOptions(at::kCUDA)), "sum");
      const auto other = at::full({1 << 20}, -1, at::TensorOptions(at::kCUDA));  // might take the freed input
      const auto sum = pending.await();
      ASSERT_TRUE(sum.eq(kRanks * step).all().item<bool>()) << step;
    }
  });
}

TEST_F(OnDevice, ErrorsAreThoseOfLoopback) {
  auto worlds = make_loopback(kRanks, {.timeout_s = 1});
  run(worlds, [&](World& world) {
    const auto group = world.all();
    const auto rows = at::ones({4}, at::TensorOptions(at::kCUDA));
    group->all_reduce(rows, "first").await();
    if (world.rank() == 1) return sleep_until_us(now_us() + 3e6);
    EXPECT_THAT(error_of([&] { group->all_reduce(rows, "late").await(); }),
                AllOf(HasSubstr("late"), HasSubstr("rank 1")));
    EXPECT_THAT(error_of([&] { group->all_reduce(rows, "next").await(); }), HasSubstr("late"));
  });
}

}  // namespace
}  // namespace farskip
