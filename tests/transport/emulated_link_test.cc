#include "transport/emulated_link.h"
#include "ranks.h"
#include "transport/clock.h"

namespace farskip {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::make_worlds;

TEST(LinkSpec, Parses) {
  EXPECT_EQ(LinkSpec::parse("rate=2gbit,latency=50us"), (LinkSpec{50, 2.5e8}));
  EXPECT_EQ(LinkSpec::parse("latency=1.5ms"), (LinkSpec{1500, 0}));
  EXPECT_EQ(LinkSpec::parse("rate=800kbit"), (LinkSpec{0, 1e5}));
  EXPECT_TRUE(LinkSpec::parse("none").off());
  for (const auto* text : {"none", "rate=2gbit,latency=50us", "latency=7us", "rate=10mbit"})
    EXPECT_EQ(LinkSpec::parse(LinkSpec::parse(text).to_string()), LinkSpec::parse(text)) << text;
  for (const auto* text : {"", "rate=2", "rate=gbit", "rate=-1gbit", "rate=0gbit", "speed=1gbit", "rate=1gbit,",
                           "latency=1h", "share=0.25", "rate=1ggbit"})
    EXPECT_THAT(error_of([&] { LinkSpec::parse(text); }), HasSubstr("link")) << text;
}

TEST(LinkSpec, ModelsEachExchange) {
  const LinkSpec spec{100, 1e6};
  EXPECT_DOUBLE_EQ(spec.duration_us({{1000, 10}}), 100 + 1000);
  EXPECT_DOUBLE_EQ(spec.duration_us({{1000, 10}, {10, 2000}}), 100 + 1000 + 100 + 2000);
  EXPECT_DOUBLE_EQ(LinkSpec{}.duration_us({{1000, 10}}), 0);
}

TEST(Link, ServesOneCollectiveAtATime) {
  Link link({10, 1e6});
  EXPECT_DOUBLE_EQ(link.reserve(1000, {{100, 0}}), 1110);
  EXPECT_DOUBLE_EQ(link.reserve(1050, {{0, 50}}), 1170);
  EXPECT_DOUBLE_EQ(link.reserve(5000, {{0, 0}}), 5010);
  link.set_spec({});
  EXPECT_DOUBLE_EQ(link.reserve(100, {{100, 0}}), 100);
}

class EmulatedLinks : public ::testing::TestWithParam<std::string> {
 protected:
  static constexpr int kRanks = 2;
  EmulatedLinks() : worlds_(make_worlds(GetParam(), kRanks, {.timeout_s = 60})) {
    for (auto& world : worlds_) {
      links_.push_back(std::make_shared<Link>(LinkSpec{}));
      world = with_link(std::move(world), links_.back());
    }
  }
  Worlds worlds_;
  std::vector<std::shared_ptr<Link>> links_;
};

TEST_P(EmulatedLinks, CompleteNoEarlierThanTheModel) {
  const auto rows = at::zeros({4, 250});  // 1000 bytes a row
  run_ranks(worlds_, [&](World& world) {
    const auto group = world.all();
    const int r = world.rank();
    links_[r]->set_spec({5000, 1e6});
    group->barrier();
    // Rank 0 sends three rows away, rank 1 only one: both are bound by the three.
    const std::vector<int64_t> send = r == 0 ? std::vector<int64_t>{1, 3} : std::vector<int64_t>{1, 3};
    const std::vector<int64_t> recv = r == 0 ? std::vector<int64_t>{1, 1} : std::vector<int64_t>{3, 3};
    CollectiveReport report;
    const auto got = group->all_to_all(rows, send, recv, "dispatch").await(&report);
    EXPECT_EQ(got.size(0), r == 0 ? 2 : 6);
    EXPECT_GE(report.completed_us - report.launched_us, 5000 + 3000);
    EXPECT_GE(report.waited_us, 1000);
    auto first = group->all_reduce(at::zeros({1000}), "first");    // twice (latency + 2000 bytes)
    auto second = group->all_reduce(at::zeros({1000}), "second");  // behind the first
    CollectiveReport first_report, second_report;
    second.await(&second_report);
    first.await(&first_report);
    EXPECT_GE(first_report.completed_us - first_report.launched_us, 2 * 7000);
    EXPECT_GE(second_report.completed_us, first_report.completed_us + 2 * 7000 - 1);
  });
}

TEST_P(EmulatedLinks, WhatIsLaunchedEarlyIsHidden) {
  run_ranks(worlds_, [&](World& world) {
    const auto group = world.all();
    links_[world.rank()]->set_spec({100e3, 0});
    group->barrier();
    auto pending = group->all_reduce(at::full({100}, world.rank()), "early");  // 200 ms
    sleep_until_us(now_us() + 400e3);                                          // the computation
    CollectiveReport report;
    EXPECT_EQ(pending.await(&report)[99].item<int>(), 1);
    EXPECT_LT(report.waited_us, 150e3) << "not launched behind the computation";
    EXPECT_GE(report.completed_us - report.launched_us, 200e3);
    EXPECT_LT(report.completed_us, report.awaited_us);
  });
}

TEST_P(EmulatedLinks, CanBeSwitchedOffBetweenSteps) {
  run_ranks(worlds_, [&](World& world) {
    const auto group = world.all();
    for (int step = 0; step < 4; ++step) {
      links_[world.rank()]->set_spec(step % 2 == 0 ? LinkSpec{400e3, 0} : LinkSpec{});
      CollectiveReport report;
      group->all_gather(at::ones({1}), "step").await(&report);
      const double duration_us = report.completed_us - report.launched_us;
      EXPECT_EQ(duration_us >= 400e3, step % 2 == 0) << duration_us;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Transports, EmulatedLinks, ::testing::Values("loopback", "gloo"),
                         [](const auto& info) { return info.param; });

TEST(EmulatedLinkOfOneRank, CostsNothing) {
  const auto group = make_emulated_link(make_single("own"), std::make_shared<Link>(LinkSpec{1e9, 1}));
  CollectiveReport report;
  group->all_reduce(at::ones({100}), "own").await(&report);
  EXPECT_EQ(report.completed_us, report.launched_us);
}

}  // namespace
}  // namespace farskip
