// The transport's threads on plain buffers, to be run under the thread sanitizer: whatever a rank writes before a
// launch and after an await must be ordered with what other threads read, and failures may come at any moment.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "tests/base/error_of.h"
#include "tests/plain_buffer/memory_worlds.h"
#include "transport/clock.h"
#include "transport/emulated_link.h"
#include "transport/loopback.h"
#include "transport/probes.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using testing::error_if_any, testing::error_of;
using ::testing::HasSubstr;
using testing::make_worlds;

constexpr int kRanks = 4;

/// The only value of a float buffer; NaN where there are several.
float value_of(const at::Tensor& buffer) {
  const auto* begin = buffer.data_ptr<float>();
  for (int64_t i = 1; i < buffer.numel(); ++i)
    if (begin[i] != begin[0]) return std::nanf("");
  return begin[0];
}

class Races : public ::testing::TestWithParam<std::string> {
 protected:
  Worlds worlds(double timeout_s = 100) const {
    return make_worlds(GetParam(), kRanks, {.timeout_s = timeout_s, .heartbeat_s = 0.02});
  }
  const std::vector<int64_t> one_ = std::vector<int64_t>(kRanks, 1);
};

TEST_P(Races, BuffersAreWrittenBeforeLaunchAndAfterAwait) {
  auto ranks = worlds();
  run_ranks(ranks, [&](World& world) {
    const auto group = world.all();
    const auto rows = at::full({kRanks, 64}, 0);  // one buffer throughout: a late reader would be seen
    for (int step = 0; step < 50; ++step) {
      rows.fill_(step + world.rank());
      const auto got = group->all_to_all(rows, one_, one_, "rows").await();
      for (int r = 0; r < kRanks; ++r) ASSERT_EQ(value_of(got.narrow(0, r, 1)), step + r);
      got.fill_(-1);  // a result is its owner's
      rows.fill_(1 + step * world.rank());
      ASSERT_EQ(value_of(group->all_reduce(rows, "sum").await()), kRanks + 6 * step);
      rows.fill_(world.rank());
      ASSERT_EQ(value_of(group->reduce_scatter(rows, "part").await()), 6);
      ASSERT_EQ(value_of(group->broadcast(rows, step % kRanks, "root").await()), step % kRanks);
      const auto all = group->all_gather(rows.narrow(0, 0, world.rank()), "all", {0, 1, 2, 3}).await();
      ASSERT_EQ(value_of(all.narrow(0, 3, 3)), 3);
      group->barrier();
    }
  });
}

TEST_P(Races, SumsInRankOrderAreTheSameBitsEverywhere) {
  auto ranks = worlds();
  std::vector<at::Tensor> sums(kRanks);
  run_ranks(ranks, [&](World& world) {
    const auto terms = at::full({1000}, 1 + 0.37 * world.rank(), at::kBFloat16);
    sums[world.rank()] = world.all()->all_reduce(terms, "sum").await();
  });
  for (int r = 1; r < kRanks; ++r) EXPECT_TRUE(at::equal(sums[0], sums[r]));
}

TEST_P(Races, CommunicatorsAtTheSameTime) {
  auto ranks = worlds();
  run_ranks(ranks, [&](World& world) {
    const int r = world.rank();
    const auto all = world.all();
    const auto near = world.group(r < 2 ? std::vector{0, 1} : std::vector{2, 3}, "near");
    const auto across = world.group({r % 2, r % 2 + 2}, "across");
    for (int step = 0; step < 20; ++step) {
      auto a = all->all_reduce(at::full({100}, step), "a");
      auto b = near->all_reduce(at::full({100}, r), "b");
      auto c = across->all_gather(at::full({1, 10}, r), "c");
      auto d = all->all_to_all(at::full({kRanks, 3}, r), one_, one_, "d");
      ASSERT_EQ(value_of(c.await().narrow(0, 1, 1)), r % 2 + 2);
      ASSERT_EQ(value_of(d.await().narrow(0, 3, 1)), 3);
      ASSERT_EQ(value_of(a.await()), kRanks * step);
      ASSERT_EQ(value_of(b.await()), r < 2 ? 1 : 5);
    }
  });
}

TEST_P(Races, AwaitInAnotherThread) {
  auto ranks = worlds();
  run_ranks(ranks, [&](World& world) {
    const auto group = world.all();
    std::vector<std::thread> waiting;
    for (int step = 0; step < 10; ++step) {
      auto pending = group->all_reduce(at::full({500}, step), "sum");
      waiting.emplace_back([step, pending = std::move(pending)]() mutable {
        while (step % 2 == 0 && !pending.ready()) std::this_thread::yield();
        CollectiveReport report;
        EXPECT_EQ(value_of(pending.await(&report)), kRanks * step);
        EXPECT_GE(report.completed_us, report.launched_us);
      });
    }
    for (auto& thread : waiting) thread.join();
  });
}

TEST_P(Races, EmulatedLinkOfAllCommunicators) {
  auto ranks = worlds();
  std::vector<std::shared_ptr<Link>> links;
  std::vector<std::shared_ptr<Record>> records;
  for (auto& world : ranks) {
    links.push_back(std::make_shared<Link>(LinkSpec{200, 1e8}));
    records.push_back(std::make_shared<Record>());
    world = with_record(with_link(std::move(world), links.back()), records.back());
  }
  run_ranks(ranks, [&](World& world) {
    const auto all = world.all();
    const auto across = world.group({world.rank() % 2, world.rank() % 2 + 2}, "across");
    for (int step = 0; step < 10; ++step) {
      auto a = all->all_reduce(at::full({1000}, step), "a");
      auto b = across->all_reduce(at::full({1000}, step), "b");
      CollectiveReport report;
      ASSERT_EQ(value_of(b.await(&report)), 2 * step);
      EXPECT_GE(report.completed_us - report.launched_us, 400);
      ASSERT_EQ(value_of(a.await()), kRanks * step);
    }
    links[world.rank()]->set_spec({});  // as between steps
    all->barrier();
  });
  EXPECT_EQ(records[0]->names().size(), 21u);
}

TEST_P(Races, AbortInFlight) {
  for (int round = 0; round < 5; ++round) {
    auto ranks = worlds(1);
    std::vector<std::unique_ptr<Transport>> groups;
    for (auto& world : ranks) groups.push_back(world->all());
    std::thread aborting([&] {  // at any moment of the ranks' work
      sleep_until_us(now_us() + 500 * round);
      groups[round % kRanks]->abort("enough");
    });
    std::vector<std::string> errors(kRanks);
    run_ranks(ranks, [&](World& world) {
      auto& group = *groups[world.rank()];
      errors[world.rank()] = error_of([&] {
        while (true) {
          auto first = group.all_reduce(at::full({200}, 1), "first");
          auto second = group.all_to_all(at::full({kRanks, 10}, 1), one_, one_, "second");
          second.await();
          first.await();
        }
      });
      EXPECT_THAT(group.failure(), HasSubstr("enough"));
    });
    aborting.join();
    for (const auto& error : errors) EXPECT_THAT(error, HasSubstr("enough"));
  }
}

TEST_P(Races, ARankThatFailsEndsTheOthers) {
  auto ranks = worlds(2);
  ranks[2] = with_failure(std::move(ranks[2]), {.how = Failure::How::fail, .at = 5});
  std::vector<std::string> errors(kRanks);
  run_ranks(ranks, [&](World& world) {
    const auto group = world.all();
    errors[world.rank()] = error_of([&] {
      for (int step = 0; step < 10; ++step) group->all_reduce(at::full({10}, 1), "step" + std::to_string(step)).await();
    });
  });
  for (const auto& error : errors) EXPECT_THAT(error, AllOf(HasSubstr("step5"), HasSubstr("rank 2")));
}

TEST_P(Races, AnExceptionOnOneRankIsRethrown) {
  auto ranks = worlds(2);
  const auto text = error_of([&] {
    run_ranks(ranks, [&](World& world) {
      const auto group = world.all();
      group->barrier();
      if (world.rank() == 1) fail("out of cheese");
      group->barrier("never");
    });
  });
  EXPECT_EQ(text, "out of cheese");
}

TEST_P(Races, ARankThatIsMissingIsNamed) {
  auto ranks = worlds(0.3);
  run_ranks(ranks, [&](World& world) {
    const auto group = world.all();
    group->barrier();
    if (world.rank() == 3) return sleep_until_us(now_us() + 3e6);
    EXPECT_THAT(error_of([&] { group->all_reduce(at::full({10}, 1), "late").await(); }),
                AllOf(HasSubstr("late"), HasSubstr("rank 3")));
  });
}

TEST_P(Races, APendingDroppedWhileUnwindingDisturbsNobody) {
  auto ranks = worlds();
  run_ranks(ranks, [&](World& world) {
    const auto group = world.all();
    for (int step = 0; step < 10; ++step) {
      const auto text = error_if_any([&] {
        const auto rows = at::full({kRanks, 1000}, world.rank());
        auto dropped = group->all_to_all(rows, one_, one_, "dropped");
        if (world.rank() == step % kRanks) fail("on the way");
        EXPECT_EQ(value_of(dropped.await().narrow(0, step % kRanks, 1)), step % kRanks);
      });
      EXPECT_EQ(text, world.rank() == step % kRanks ? "on the way" : "");
      group->all_reduce(at::full({100}, 1), "given up").abandon();
      EXPECT_EQ(value_of(group->all_reduce(at::full({100}, 1), "next").await()), kRanks);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Transports, Races, ::testing::Values("loopback", "queued"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace farskip
