// How collectives fail: loudly, soon, on every rank, naming what is missing.

#include <thread>

#include "ranks.h"
#include "transport/clock.h"
#include "transport/probes.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::make_worlds;

class Failures : public ::testing::TestWithParam<std::string> {};

TEST_P(Failures, TimeoutNamesTheRankAndTheCollective) {
  auto worlds = make_worlds(GetParam(), 3, {.timeout_s = 1});
  const double begin_us = now_us();
  run_ranks(worlds, [&](World& world) {
    const auto group = world.all();
    EXPECT_EQ(group->all_reduce(at::ones({4}), "first").await()[0].item<float>(), 3);
    if (world.rank() == 1) {
      sleep_until_us(now_us() + 3.5e6);  // alive, but elsewhere
    } else {
      const auto text = error_of([&] { group->all_reduce(at::ones({4}), "second").await(); });
      EXPECT_THAT(text, AllOf(HasSubstr("second"), HasSubstr("world"), HasSubstr("rank 1"))) << "rank " << world.rank();
      EXPECT_LT(now_us() - begin_us, 3.5e6);
    }
    // Sticky: later launches fail at once with the same text, also on the rank that was missing.
    EXPECT_THAT(error_of([&] { group->barrier("third"); }), HasSubstr("second"));
  });
}

TEST_P(Failures, AFailedCollectiveEndsEveryRank) {
  auto worlds = make_worlds(GetParam(), 2, {.timeout_s = 30});
  worlds[1] = with_failure(std::move(worlds[1]), {.how = Failure::How::fail, .at = 1});
  const double begin_us = now_us();
  run_ranks(worlds, [&](World& world) {
    const auto group = world.all();
    group->barrier("zeroth");
    const auto text = error_of([&] { group->all_reduce(at::ones({2}), "broken").await(); });
    EXPECT_THAT(text, AllOf(HasSubstr("broken"), HasSubstr("rank 1"))) << "rank " << world.rank();
    EXPECT_THAT(error_of([&] { group->barrier("later"); }), HasSubstr("broken"));
    EXPECT_THAT(group->failure(), HasSubstr("broken"));
  });
  EXPECT_LT(now_us() - begin_us, 45e6);
}

TEST_P(Failures, ARankThatHangsIsNamed) {
  auto worlds = make_worlds(GetParam(), 2, {.timeout_s = 1});
  worlds[0] = with_failure(std::move(worlds[0]), {.how = Failure::How::hang, .at = 0});
  run_ranks(worlds, [&](World& world) {
    const auto group = world.all();
    EXPECT_THAT(error_of([&] { group->all_reduce(at::ones({2}), "stuck").await(); }),
                AllOf(HasSubstr("stuck"), HasSubstr("rank 0")));
  });
}

TEST_P(Failures, ADelayOnlyDelays) {
  auto worlds = make_worlds(GetParam(), 2, {.timeout_s = 30});
  worlds[0] = with_failure(std::move(worlds[0]), {.how = Failure::How::delay, .at = 0, .delay_us = 50e3});
  run_ranks(worlds, [&](World& world) {
    const auto group = world.all();
    const double begin_us = now_us();
    EXPECT_EQ(group->all_reduce(at::ones({2}), "slow").await()[0].item<float>(), 2);
    EXPECT_GE(now_us() - begin_us, world.rank() == 0 ? 50e3 : 0);
    EXPECT_EQ(group->failure(), "");
  });
}

TEST_P(Failures, AnExceptionOnOneRankFreesTheOthers) {
  auto worlds = make_worlds(GetParam(), 2, {.timeout_s = 30});
  const auto text = error_of([&] {
    run_ranks(worlds, [&](World& world) {
      const auto group = world.all();
      if (world.rank() == 1) fail("out of cheese");
      group->barrier("never");
    });
  });
  EXPECT_EQ(text, "out of cheese");
}

INSTANTIATE_TEST_SUITE_P(Transports, Failures, ::testing::Values("loopback", "gloo"),
                         [](const auto& info) { return info.param; });

TEST(Mismatch, IsNamedOnLoopback) {
  auto worlds = make_loopback(2, {.timeout_s = 30});
  run_ranks(worlds, [&](World& world) {
    const auto group = world.all();
    const auto text = error_of([&] { group->all_reduce(at::ones({2}), world.rank() == 0 ? "left" : "right").await(); });
    EXPECT_THAT(text, AllOf(HasSubstr("left"), HasSubstr("right"), HasSubstr("same order")));
  });
  auto others = make_loopback(2, {.timeout_s = 30});
  run_ranks(others, [&](World& world) {
    const auto group = world.all();
    const std::vector<int64_t> one = {1, 1}, expected = {1, world.rank() == 0 ? 2 : 1};
    EXPECT_THAT(error_of([&] {
                  group->all_to_all(at::ones({2, 1}), one, expected, "rows").await();
                }),
                AllOf(HasSubstr("rows"), HasSubstr("expects 2")));
  });
}

TEST(PendingDeathTest, DroppingACollectiveStopsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto worlds = make_loopback(2);
        auto group = worlds[0]->all();
        group->all_reduce(at::ones({2}), "forgotten");
      },
      "'forgotten'.*dropped without being awaited");
}

TEST(Pending, MayBeDroppedWhileUnwindingAndAfterAFailure) {
  auto worlds = make_loopback(2);
  const auto group = worlds[0]->all();
  EXPECT_EQ(error_of([&] {
              const auto pending = group->all_reduce(at::ones({2}), "lost");
              fail("something else went wrong");
            }),
            "something else went wrong");
  group->all_reduce(at::ones({2}), "given up").abandon();
  auto pending = group->all_reduce(at::ones({2}), "late");
  EXPECT_FALSE(pending.ready());
  group->abort("enough");
  EXPECT_TRUE(pending.ready());
}

TEST(PendingDeathTest, IsAwaitedOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto pending = make_single("own")->all_reduce(at::ones({2}), "once");
  EXPECT_TRUE(pending.valid());
  pending.await();
  EXPECT_FALSE(pending.valid());
  EXPECT_DEATH(pending.await(), "exactly once");
}

TEST(Record, KeepsTheOrderOfLaunches) {
  auto worlds = make_loopback(2);
  std::vector<std::shared_ptr<Record>> records;
  for (auto& world : worlds) {
    records.push_back(std::make_shared<Record>());
    world = with_record(std::move(world), records.back());
  }
  run_ranks(worlds, [&](World& world) {
    const auto expert = world.all("expert");
    const auto all = world.all("world");
    auto a = expert->all_reduce(at::ones({8}), "a");
    auto b = all->all_gather(at::ones({world.rank(), 4}), "b", {0, 1});
    b.await();
    a.await();
    expert->barrier("c");
  });
  EXPECT_EQ(records[0]->names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(records[0]->names("expert"), (std::vector<std::string>{"a", "c"}));
  EXPECT_EQ(records[0]->entries()[0].bytes_sent, 2 * 4 * 4);
  EXPECT_EQ(records[0]->entries()[1], (Record::Entry{CollectiveKind::all_gather, "b", "world", 0, 16}));
  EXPECT_EQ(records[1]->names(), records[0]->names());
}

}  // namespace
}  // namespace farskip
