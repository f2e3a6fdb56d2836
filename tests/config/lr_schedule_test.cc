// Learning rates and weight decays at points computed by hand, at the borders of each part above all.

#include "config/lr_schedule.h"

#include <gmock/gmock.h>

#include <cmath>

#include "config/train_config.h"
#include "helpers.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// 4 steps of warm-up from 0.1 to 1, decay to 0.2 at step 12.
LrSchedule schedule_of(LrDecayStyle style) {
  LrSchedule s;
  s.style = style;
  s.init_lr = 0.1;
  s.max_lr = 1;
  s.min_lr = 0.2;
  s.warmup_steps = 4;
  s.decay_steps = 12;
  s.wsd_decay_steps = 4;
  return s;
}

constexpr LrDecayStyle all_styles[] = {LrDecayStyle::constant, LrDecayStyle::linear, LrDecayStyle::cosine,
                                       LrDecayStyle::inverse_square_root, LrDecayStyle::wsd};

TEST(LrSchedule, WarmsUpLinearlyInEveryStyle) {
  for (auto style : all_styles) {
    const LrSchedule s = schedule_of(style);
    EXPECT_DOUBLE_EQ(s.at(0), 0.1);
    EXPECT_DOUBLE_EQ(s.at(1), 0.1 + 0.9 / 4);
    EXPECT_DOUBLE_EQ(s.at(2.5), 0.1 + 0.9 * 2.5 / 4) << "consumed samples may be a fraction of a full step";
    EXPECT_DOUBLE_EQ(s.at(4), 1);
  }
}

TEST(LrSchedule, ConstantNeverFalls) {
  for (double steps : {5, 12, 13, 100}) EXPECT_DOUBLE_EQ(schedule_of(LrDecayStyle::constant).at(steps), 1);
}

TEST(LrSchedule, EveryOtherStyleEndsAtTheSmallest) {
  for (auto style : all_styles) {
    if (style == LrDecayStyle::constant) continue;
    EXPECT_DOUBLE_EQ(schedule_of(style).at(13), 0.2);
    EXPECT_DOUBLE_EQ(schedule_of(style).at(1000), 0.2);
  }
  for (auto style : {LrDecayStyle::linear, LrDecayStyle::cosine, LrDecayStyle::wsd}) {
    EXPECT_DOUBLE_EQ(schedule_of(style).at(12), 0.2);
  }
}

TEST(LrSchedule, LinearAndCosine) {
  const LrSchedule linear = schedule_of(LrDecayStyle::linear), cosine = schedule_of(LrDecayStyle::cosine);
  EXPECT_DOUBLE_EQ(linear.at(5), 0.9);
  EXPECT_DOUBLE_EQ(linear.at(8), 0.6);
  EXPECT_DOUBLE_EQ(linear.at(11), 0.3);
  EXPECT_NEAR(cosine.at(6), 0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2, 1e-15);  // a quarter of the way
  EXPECT_NEAR(cosine.at(8), 0.6, 1e-15);
  EXPECT_NEAR(cosine.at(10), 0.2 + 0.8 * (1 - std::sqrt(0.5)) / 2, 1e-15);
}

TEST(LrSchedule, InverseSquareRoot) {
  LrSchedule s = schedule_of(LrDecayStyle::inverse_square_root);
  EXPECT_DOUBLE_EQ(s.at(9), 2.0 / 3);
  EXPECT_DOUBLE_EQ(s.at(12), std::sqrt(1.0 / 3)) << "the last step still follows the root";
  s.decay_steps = 1000;
  EXPECT_DOUBLE_EQ(s.at(100), 0.2);
  EXPECT_DOUBLE_EQ(s.at(400), 0.2) << "0.1, but not below the smallest";
  s.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(s.at(1), 1);
  EXPECT_DOUBLE_EQ(s.at(4), 0.5);
}

TEST(LrSchedule, WsdHoldsAndThenDecaysInItsShape) {
  LrSchedule s = schedule_of(LrDecayStyle::wsd);
  const auto coefficients = [&](WsdDecayStyle style) {
    s.wsd_style = style;
    for (double steps : {4, 5, 8}) EXPECT_DOUBLE_EQ(s.at(steps), 1);
    std::vector<double> result;
    for (double steps : {9, 10, 11, 12}) result.push_back((s.at(steps) - 0.2) / 0.8);
    return result;
  };
  const auto near = [](const std::vector<double>& values) {
    return ::testing::Pointwise(::testing::DoubleNear(1e-14), values);
  };
  const double root = std::sqrt(0.5);
  EXPECT_THAT(coefficients(WsdDecayStyle::linear), near({0.75, 0.5, 0.25, 0}));
  EXPECT_THAT(coefficients(WsdDecayStyle::cosine), near({(1 + root) / 2, 0.5, (1 - root) / 2, 0}));
  EXPECT_THAT(coefficients(WsdDecayStyle::exponential),
              near({2 * std::sqrt(root) - 1, 2 * root - 1, 2 * root * std::sqrt(root) - 1, 0}));
  EXPECT_THAT(coefficients(WsdDecayStyle::minus_sqrt), near({0.5, 1 - root, 1 - std::sqrt(0.75), 0}));
}

TEST(WeightDecaySchedule, RisesInItsShape) {
  WeightDecaySchedule s{WeightDecayStyle::linear, 0.1, 0.5, 8};
  EXPECT_DOUBLE_EQ(s.at(0), 0.1);
  EXPECT_DOUBLE_EQ(s.at(2), 0.2);
  EXPECT_DOUBLE_EQ(s.at(8), 0.5);
  EXPECT_DOUBLE_EQ(s.at(9), 0.5);
  s.style = WeightDecayStyle::cosine;
  EXPECT_NEAR(s.at(0), 0.1, 1e-15);
  EXPECT_NEAR(s.at(2), 0.1 + 0.4 * (1 - std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_NEAR(s.at(4), 0.3, 1e-15);
  EXPECT_DOUBLE_EQ(s.at(8), 0.5);
  EXPECT_DOUBLE_EQ(s.at(9), 0.5);
}

TrainConfig load(std::vector<std::string> settings) {
  settings.push_back("model=m");
  return load_train_config("", settings);
}
std::string refusal(const std::vector<std::string>& settings) {
  return error_of([&] { load(settings); });
}

/// With a batch of full size throughout.
StepRates rates(const TrainConfig& config, int64_t steps) {
  return config.rates({(steps - 1) * config.global_batch_size, config.global_batch_size});
}

TEST(Rates, FollowTheRecipe) {
  const TrainConfig c = load({"lr=1", "min_lr=0.2", "lr_warmup_fraction=0.25", "lr_decay_iters=16", "train_iters=20",
                              "lr_decay_style=linear", "lr_warmup_init=0.4", "decoupled_lr=2", "decoupled_min_lr=0",
                              "weight_decay_incr_style=linear", "start_weight_decay=0", "end_weight_decay=1"});
  EXPECT_DOUBLE_EQ(rates(c, 2).lr, 0.7);
  EXPECT_DOUBLE_EQ(rates(c, 2).decoupled_lr, 1.2);
  EXPECT_DOUBLE_EQ(rates(c, 10).lr, 0.6);
  EXPECT_DOUBLE_EQ(rates(c, 10).decoupled_lr, 1);
  EXPECT_DOUBLE_EQ(rates(c, 10).weight_decay, 0.5);
  const TrainConfig plain = load({"lr=1", "min_lr=0.5", "lr_warmup_iters=4", "train_iters=12"});
  for (int64_t steps : {1, 4, 8, 12, 13}) EXPECT_EQ(rates(plain, steps).lr, rates(plain, steps).decoupled_lr);
  EXPECT_EQ(rates(plain, 1).lr, 0.25);
  EXPECT_DOUBLE_EQ(rates(plain, 12).lr, 0.5);
  EXPECT_EQ(rates(plain, 3).weight_decay, 0.1);
}

TEST(Rates, CountFullBatchesWhileTheBatchGrows) {
  const TrainConfig c = load({"lr=1", "lr_warmup_iters=4", "global_batch_size=8", "rampup_batch_size=4,4,12"});
  const BatchRamp ramp = c.batch_ramp();
  const double expected[] = {0.125, 0.25, 0.375, 0.625, 0.875};  // 4, 8, 12, 20, 28 of 32 samples
  for (int64_t i = 0; i < 5; ++i) EXPECT_DOUBLE_EQ(c.rates(ramp.at(i)).lr, expected[i]) << i;
}

TEST(Rates, ContradictionsAreRefused) {
  EXPECT_THAT(refusal({"lr=1", "lr_warmup_init=2"}), AllOf(HasSubstr("lr_warmup_init = 2"), HasSubstr("lr = 1")));
  EXPECT_THAT(refusal({"lr_warmup_fraction=0.1", "lr_warmup_iters=3"}), HasSubstr("only one"));
  EXPECT_THAT(refusal({"lr_warmup_fraction=1"}), HasSubstr("less than 1"));
  EXPECT_THAT(refusal({"lr_decay_style=WSD"}), HasSubstr("needs lr_wsd_decay_iters"));
  EXPECT_THAT(refusal({"lr_wsd_decay_iters=3"}), HasSubstr("make that WSD"));
  EXPECT_THAT(refusal({"lr_decay_style=WSD", "lr_wsd_decay_iters=8", "lr_warmup_iters=3", "train_iters=10"}),
              AllOf(HasSubstr("lr_wsd_decay_iters = 8"), HasSubstr("10 steps")));
  EXPECT_THAT(refusal({"lr_decay_style=wsd"}), HasSubstr("WSD"));
  EXPECT_THAT(refusal({"lr=1", "min_lr=0.5", "decoupled_lr=0.1"}), HasSubstr("lower decoupled_min_lr"));
  EXPECT_THAT(refusal({"weight_decay_incr_style=linear", "start_weight_decay=0.1"}), HasSubstr("end_weight_decay"));
  EXPECT_THAT(refusal({"start_weight_decay=0.1"}), HasSubstr("linear or cosine"));
  EXPECT_THAT(refusal({"weight_decay_incr_style=cosine", "start_weight_decay=0.2", "end_weight_decay=0.1"}),
              HasSubstr("only rise"));
}

}  // namespace
}  // namespace farskip
