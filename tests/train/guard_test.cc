// The guard's decisions by hand; what a skipped step leaves alone.

#include "train/guard.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "model/initialize.h"
#include "tests/model/model_test.h"
#include "train/training_step.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

StepGuard::Options small_window() {
  StepGuard::Options options;
  options.loss_spike_factor = 2;
  options.grad_spike_factor = 3;
  options.window = 3;
  options.patience = 3;
  return options;
}

/// Has seen losses 4, 3, 5 and norms 1, 1, 1.
StepGuard settled(const StepGuard::Options& options) {
  StepGuard guard(options);
  for (double loss : {4, 3, 5}) EXPECT_EQ(guard.judge(loss, 1), Verdict::apply);
  return guard;
}

TEST(StepGuard, SkipsWhatIsNotFinite) {
  StepGuard guard({});
  EXPECT_EQ(guard.judge(nan, 1), Verdict::skip);
  EXPECT_THAT(guard.reason(), HasSubstr("loss is nan"));
  EXPECT_EQ(guard.judge(1, infinity), Verdict::skip);
  EXPECT_THAT(guard.reason(), HasSubstr("gradient norm is inf"));
  EXPECT_EQ(guard.judge(1, 1), Verdict::apply);
  EXPECT_EQ(guard.reason(), "");
  EXPECT_EQ(guard.num_skipped(), 2);
}

TEST(StepGuard, JudgesNothingWhenSwitchedOff) {
  StepGuard guard({.skip_nonfinite = false});
  for (double value : {1.0, nan, infinity, 1e30, 1.0}) EXPECT_EQ(guard.judge(value, value), Verdict::apply);
  EXPECT_EQ(StepGuard({.skip_nonfinite = false}).to_json()["losses"].size(), 0u);
  EXPECT_EQ(guard.to_json()["losses"].size(), 3u) << "a state without what JSON cannot hold";
}

TEST(StepGuard, ComparesWithTheRunningMedian) {
  StepGuard guard = settled(small_window());
  EXPECT_EQ(guard.judge(8.01, 1), Verdict::skip) << "median 4";
  EXPECT_THAT(guard.reason(), AllOf(HasSubstr("8.01"), HasSubstr("2 times"), HasSubstr("3 steps, 4")));
  EXPECT_EQ(guard.judge(8, 1), Verdict::apply) << "the border itself; the skipped loss is no part of the window";
  EXPECT_EQ(guard.judge(10, 1), Verdict::apply) << "3, 5, 8: median 5";
  EXPECT_EQ(guard.judge(4, 3.5), Verdict::skip) << "norms 1, 1, 1";
  EXPECT_THAT(guard.reason(), HasSubstr("gradient norm 3.5"));
  EXPECT_EQ(guard.num_skipped(), 2);
}

TEST(StepGuard, SaysNothingBeforeTheWindowIsFull) {
  StepGuard guard(small_window());
  EXPECT_EQ(guard.judge(1, 1), Verdict::apply);
  EXPECT_EQ(guard.judge(100, 100), Verdict::apply);
}

TEST(StepGuard, AsksForARollBackWhenPatienceEnds) {
  StepGuard guard = settled(small_window());
  EXPECT_EQ(guard.judge(9, 1), Verdict::skip);
  EXPECT_EQ(guard.judge(9, 1), Verdict::skip);
  EXPECT_EQ(guard.judge(4, 1), Verdict::apply) << "which starts the count again";
  EXPECT_EQ(guard.judge(nan, 1), Verdict::skip);
  EXPECT_EQ(guard.judge(9, 1), Verdict::skip);
  EXPECT_EQ(guard.judge(9, 1), Verdict::roll_back);
  EXPECT_THAT(guard.reason(), HasSubstr("3 steps in a row"));
  EXPECT_EQ(guard.num_skipped(), 5);
  guard.rolled_back();
  EXPECT_EQ(guard.num_roll_backs(), 1);
  EXPECT_EQ(guard.judge(9, 1), Verdict::apply) << "nothing is known yet of the run from there on";
  EXPECT_EQ(guard.num_skipped(), 5);
}

TEST(StepGuard, AsksForARollBackAfterASustainedRise) {
  StepGuard guard = settled(small_window());  // median 4, the lowest
  double loss = 5;
  Verdict verdict = Verdict::apply;
  int num_steps = 0;
  while (verdict == Verdict::apply && num_steps < 50) {
    verdict = guard.judge(loss *= 1.1, 1);  // never a spike
    ++num_steps;
  }
  EXPECT_EQ(verdict, Verdict::roll_back);
  // 5 * 1.1^n first exceeds 8 at n = 5; it is the median one step later.
  EXPECT_EQ(num_steps, 6);
  EXPECT_THAT(guard.reason(), AllOf(HasSubstr("risen"), HasSubstr("lowest, 4")));
}

TEST(StepGuard, GoesOnFromItsState) {
  StepGuard original = settled(small_window());
  original.judge(9, 1);
  original.judge(9, 1);
  StepGuard copy(small_window());
  copy.from_json(nlohmann::json::parse(original.to_json().dump()));
  for (const auto& [loss, norm] : {std::pair{9.0, 1.0}, {4.0, 1.0}, {8.0, 1.0}, {4.0, 3.5}, {nan, 1.0}, {1.0, 1.0}}) {
    EXPECT_EQ(original.judge(loss, norm), copy.judge(loss, norm));
    EXPECT_EQ(original.reason(), copy.reason());
  }
  EXPECT_EQ(original.to_json(), copy.to_json());
  EXPECT_THROW(copy.from_json({{"losses", "many"}}), Error);
  EXPECT_EQ(original.to_json(), copy.to_json()) << "a state that cannot be read changes nothing";
}

class SkippedStep : public ::testing::Test {
 protected:
  SkippedStep() {
    initialize(*parameters_, {1, 0.1});
    parameters_->update_values();
    for (int id = 0; id < parameters_->size(); ++id) {
      parameters_->main_grad(id).fill_(0.01);
      before_.push_back(parameters_->main(id).clone());
    }
  }
  /// Of two MoE layers with uneven loads.
  static at::Tensor stats(double loss) {
    return at::tensor({loss, 0.0, 0.0, 0.0, 0.0, 0.0, 25.0, 5.0, 10.0, 0.0, 25.0, 5.0, 10.0, 0.0}, at::kDouble);
  }
  void run(TrainingStep& step, double loss) {
    step.begin({0, 8});
    step.local_stats({}, {});
    step.optimize(stats(loss));
  }
  bool changed() const {
    bool changed = false;
    for (int id = 0; id < parameters_->size(); ++id) {
      changed |= !at::equal(parameters_->main(id), before_[id]);
      changed |= !at::equal(parameters_->value(id), before_[id]);
    }
    for (int i = 0; i < 2; ++i) changed |= parameters_->buffer(i).ne(0).any().item<bool>();
    return changed;
  }

  const ModelConfig model_ = testing::small_config();
  const std::unique_ptr<ParameterSet> parameters_ =
      std::make_unique<ParameterSet>(testing::make_table(model_), ParameterOptions{});
  std::vector<at::Tensor> before_;
};

TEST_F(SkippedStep, ChangesNoWeightAndNoRouterBias) {
  ParameterShards shards(*parameters_, Layout{}, 0, false);
  TrainingStep step(model_, *parameters_, shards, TrainConfig(), Layout{}, 0);
  run(step, nan);
  EXPECT_EQ(step.stats().verdict, Verdict::skip);
  EXPECT_FALSE(changed());
  parameters_->main_grad(0).fill_(nan);
  run(step, 1.0);
  EXPECT_EQ(step.stats().verdict, Verdict::skip) << "the norm is taken of the gradients";
  EXPECT_FALSE(changed());
  parameters_->main_grad(0).fill_(0.01);
  run(step, 1.0);
  EXPECT_EQ(step.stats().verdict, Verdict::apply);
  EXPECT_TRUE(changed());
  EXPECT_EQ(step.guard().num_skipped(), 2);
}

}  // namespace
}  // namespace farskip
