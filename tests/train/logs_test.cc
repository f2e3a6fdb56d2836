// Figures for logs: how even the experts' load is, which rank is late, what stands in a line.

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"
#include "train/load_stats.h"
#include "train/rank_times.h"
#include "train/step_log.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;
using ::testing::Pair;

TEST(LoadStats, EvenLoad) {
  const LoadStats stats = load_stats({6, 6, 6, 6});
  EXPECT_EQ(stats.max, 6);
  EXPECT_EQ(stats.mean, 6);
  EXPECT_NEAR(stats.entropy, 1, 1e-15);
  EXPECT_EQ(stats.unused, 0);
  EXPECT_EQ(stats.max_over_mean(), 1);
}

TEST(LoadStats, UnevenLoad) {
  const LoadStats stats = load_stats({8, 4, 4, 0});
  EXPECT_EQ(stats.max, 8);
  EXPECT_EQ(stats.mean, 4);
  EXPECT_EQ(stats.max_over_mean(), 2);
  EXPECT_NEAR(stats.entropy, 1.5 * std::log(2) / std::log(4), 1e-15);  // shares 1/2, 1/4, 1/4
  EXPECT_EQ(stats.unused, 0.25);
  EXPECT_EQ(load_stats({0, 12, 0, 0}).entropy, 0);
  EXPECT_EQ(load_stats({0, 12, 0, 0}).unused, 0.75);
}

TEST(LoadStats, Borders) {
  EXPECT_EQ(load_stats({5}).entropy, 1);
  const LoadStats none = load_stats({0, 0});
  EXPECT_EQ(none.max_over_mean(), 0);
  EXPECT_EQ(none.entropy, 0);
  EXPECT_EQ(none.unused, 1);
}

TEST(Straggler, IsTheRankThatTheOthersWaitFor) {
  const auto found = find_straggler({100, 101, 112, 99});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->rank, 2);
  EXPECT_EQ(found->ms, 112);
  EXPECT_EQ(found->others_ms, 100);
  EXPECT_EQ(found->to_string(), "rank 2 computes 112.0 ms a step, 12 % more than the others (100.0 ms)");
  EXPECT_EQ(find_straggler({100, 106})->rank, 1);
  EXPECT_EQ(find_straggler({106, 100})->rank, 0);
}

TEST(Straggler, SmallDifferencesAreNone) {
  EXPECT_FALSE(find_straggler({100, 105}));
  EXPECT_FALSE(find_straggler({100, 104, 98, 101}));
  EXPECT_FALSE(find_straggler({100}));
  EXPECT_TRUE(find_straggler({100, 104}, 0.02));
}

TEST(RankTimes, AreTheMediansOfAllRanksWithoutWaits) {
  auto worlds = make_loopback(3);
  run_ranks(worlds, [](World& world) {
    const auto transport = Communicators::make(world, Layout{.ep = 3}).world;
    RankTimes times;
    for (double ms : {10.0, 500.0, 20.0}) {
      StepResult step;
      step.begin_us = 1e6;
      step.end_us = 1e6 + 1e3 * (ms + 7 + world.rank());
      step.reports.resize(2);
      step.reports[0].waited_us = 3e3;
      step.reports[1].waited_us = 4e3;
      times.add(step);
    }
    EXPECT_THAT(times.gather(*transport), ElementsAre(20, 21, 22));
    StepResult next;
    next.end_us = 1e3;
    times.add(next);
    EXPECT_THAT(times.gather(*transport), ElementsAre(1, 1, 1)) << "the steps before are forgotten";
  });
}

StepStats dense_and_moe() {
  StepStats stats;
  stats.loss = 2.5;
  stats.gradient_norm = 0.5;
  stats.lr = 1e-3;
  stats.load = {{}, {8, 4, 4, 0}};
  return stats;
}

TEST(StepLine, SaysWhatTheStepWas) {
  const StepRecord record{3, {16, 8}, 256, 100};
  EXPECT_DOUBLE_EQ(record.tokens_per_second(), 20480);
  StepStats stats = dense_and_moe();
  const nlohmann::json line = step_line(record, stats, "");
  EXPECT_EQ(line["iteration"], 3);
  EXPECT_EQ(line["consumed_samples"], 24);
  EXPECT_EQ(line["batch_size"], 8);
  EXPECT_FALSE(line.contains("skipped"));
  EXPECT_FALSE(line.contains("z_loss"));
  ASSERT_EQ(line["experts"].size(), 1u) << "the first layer is dense";
  EXPECT_EQ(line["experts"][0]["layer"], 1);
  EXPECT_EQ(line["experts"][0]["max_load"], 8);
  EXPECT_EQ(line["experts"][0]["unused"], 0.25);
  stats.verdict = Verdict::skip;
  stats.z_loss = 0.25;
  EXPECT_EQ(step_line(record, stats, "the loss is nan")["skipped"], "the loss is nan");
  EXPECT_EQ(step_line(record, stats, "the loss is nan")["z_loss"], 0.25);
}

TEST(StepScalars, HaveMegatronsNames) {
  const auto scalars = step_scalars({3, {16, 8}, 256, 100}, dense_and_moe());
  for (const auto& [name, value] : {std::pair<std::string, double>{"lm loss", 2.5},
                                    {"learning-rate", 1e-3},
                                    {"grad-norm", 0.5},
                                    {"batch-size", 8},
                                    {"iteration-time", 0.1},
                                    {"expert-load-max-over-mean/layer-1", 2}}) {
    EXPECT_THAT(scalars, Contains(Pair(name, value)));
  }
  EXPECT_THAT(scalars, Not(Contains(Pair("load_balancing_loss", ::testing::_))));
}

}  // namespace
}  // namespace farskip
