// What steers a run, as a user meets it: the growing batch, the guard, curves for TensorBoard, benchmarks with forced
// balance.

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using testing::run_farskip;
namespace fs = std::filesystem;

class Steering : public testing::TinyTraining {
 protected:
  static constexpr const char* two_ranks = "connectivity=farskip layout=ep=2 --nproc 2 ";
};

TEST_F(Steering, TheBatchGrowsAndAResumedRunKnowsItsSize) {
  const std::string run = std::string(two_ranks) + "rampup_batch_size=4,4,12 lr_decay_iters=6 ";
  const std::string whole = trained(run + "train_iters=6");
  std::vector<int64_t> sizes, consumed;
  for (const auto& step : steps(whole)) {
    sizes.push_back(step["batch_size"]);
    consumed.push_back(step["consumed_samples"]);
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{4, 4, 4, 8, 8, 8}));
  EXPECT_EQ(consumed, (std::vector<int64_t>{4, 8, 12, 20, 28, 36}));

  const std::string save = "save=" + folder / "saved" + " ";
  auto parts = digits(trained(run + save + "train_iters=2"));
  const auto refused = run_farskip(train(run + save + "train_iters=6 auto_resume=true rampup_batch_size="));
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("consumed_samples=8, the recipe says 16"));
  for (const auto& step : digits(trained(run + save + "train_iters=6 auto_resume=true"))) parts.push_back(step);
  EXPECT_EQ(parts, digits(whole));
}

// A window of one step and no patience: every step whose loss is above the one before asks for a roll-back.
TEST_F(Steering, ARunThatHasLostItsWayGoesBackToACheckpoint) {
  const std::string run =
      std::string(two_ranks) + "train_iters=30 loss_spike_factor=1.0001 guard_window=1 guard_patience=1 ";
  trained(run + "save_interval=1 save=" + folder / "saved");
  EXPECT_THAT(last.err, HasSubstr("weights and moments are again those of iteration"));
  EXPECT_THAT(last.err, HasSubstr("1.0001 times the median"));
  const auto lost = run_farskip(train(run));
  EXPECT_EQ(lost.status, 1);
  EXPECT_THAT(lost.err, HasSubstr("there is no checkpoint to go back to"));
  // With patience such steps are left out one by one, and the log says so.
  const std::string log =
      trained(std::string(two_ranks) + "train_iters=30 loss_spike_factor=1.0001 guard_window=1 guard_patience=30");
  int skipped = 0;
  for (const auto& step : steps(log)) skipped += step.contains("skipped");
  EXPECT_GT(skipped, 0);
  EXPECT_THAT(last.err, HasSubstr("changes nothing (" + std::to_string(skipped) + " so far)"));
}

TEST_F(Steering, CurvesForTensorBoardAreRankZerosAlone) {
  trained(std::string(two_ranks) + "moe_z_loss_coeff=0.001 log_interval=4 tensorboard_dir=" + folder / "runs/a");
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder / "runs/a")) files.push_back(entry.path());
  ASSERT_EQ(files.size(), 1u);
  const std::string bytes = read_file(files[0].string());
  for (const char* name : {"lm loss", "learning-rate", "grad-norm", "batch-size", "iteration-time", "tokens-per-second",
                           "load_balancing_loss", "z_loss", "expert-load-max-over-mean/layer-2"}) {
    EXPECT_THAT(bytes, HasSubstr(name));
  }
  const auto refused = run_farskip(train("tensorboard_dir=" + folder / "recipe.yaml"));
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("recipe.yaml"));
}

TEST_F(Steering, ForcedBalanceIsEvenAndMarked) {
  const std::string log = trained(std::string(two_ranks) + "moe_router_force_load_balancing=true train_iters=2");
  EXPECT_THAT(last.err, HasSubstr("for benchmarks only"));
  for (const auto& step : steps(log)) {
    ASSERT_EQ(step["experts"].size(), 2u);
    for (const auto& layer : step["experts"]) {
      EXPECT_EQ(layer["max_load"], layer["mean_load"]);
      EXPECT_NEAR(layer["entropy"].get<double>(), 1, 1e-12);
      EXPECT_EQ(layer["unused"], 0);
    }
  }
}

}  // namespace
}  // namespace farskip
