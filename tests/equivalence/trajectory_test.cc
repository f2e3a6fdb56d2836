// A training run against the field's: 50 steps of transformers' model under torch's AdamW, clipping and a cosine
// schedule (tests/golden/make_trajectory.py) from the same weights on the same batches.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/safetensors.h"
#include "sim/search.h"
#include "train/launch.h"
#include "train/session.h"

namespace farskip {
namespace {

constexpr const char* golden = FARSKIP_SOURCE_DIR "/tests/golden/deepseek_v2_group";

struct Trajectory {
  SafetensorsReader file{std::string(golden) + "/trajectory.safetensors"};
  at::Tensor tokens = file.tensor("tokens").clone();  ///< [steps, rows, length + 1]
  std::vector<double> read(const std::string& name) const {
    const at::Tensor values = file.tensor(name);
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
  }
};

/// The script's settings.
TrainConfig recipe(const Trajectory& trajectory, const std::string& layout) {
  TrainConfig config;
  config.load = golden;
  config.layout = layout;
  config.seq_length = trajectory.tokens.size(2) - 1;
  config.global_batch_size = trajectory.tokens.size(1);
  config.micro_batch_size = 2;
  config.train_iters = trajectory.tokens.size(0);
  config.lr = 1e-3;
  config.min_lr = 1e-4;
  config.lr_warmup_iters = 5;
  config.lr_decay_style = LrDecayStyle::cosine;
  config.weight_decay = 0.1;
  config.adam_beta1 = 0.9;
  config.adam_beta2 = 0.95;
  config.adam_eps = 1e-8;
  config.clip_grad = 1;
  config.moe_aux_loss_coeff = 0;
  config.moe_router_bias_update_rate = 0;
  return config;
}

struct Differences {
  double loss = 0, gradient_norm = 0, weight_norm = 0;  ///< largest over the steps (the last two relative); of the end
};

Differences train(const Trajectory& trajectory, TrainConfig config, int num_ranks) {
  const auto losses = trajectory.read("losses"), norms = trajectory.read("gradient_norms");
  config.expert_model_parallel_size = Layout::parse(config.layout).ep;
  config.resolve(num_ranks);
  const at::Tensor rows = trajectory.tokens.flatten(0, 1).to(at::kInt).contiguous();
  const SampleSource samples = [&](int64_t i) {
    const auto* row = rows.data_ptr<int32_t>() + i * rows.size(1);
    return std::vector<int32_t>(row, row + rows.size(1));
  };
  Differences worst;
  LaunchOptions launch;
  launch.num_ranks = num_ranks;
  run_on_ranks(launch, [&](RankContext& context) {
    TrainingSession session(config, context.world, samples);
    const Schedule paper = named_schedule("paper", session.graph(), {});
    Differences mine;
    for (size_t i = 0; i < losses.size(); ++i) {
      session.step(static_cast<int64_t>(i), paper);
      mine.loss = std::max(mine.loss, std::abs(session.stats().loss - losses[i]));
      mine.gradient_norm = std::max(mine.gradient_norm, std::abs(session.stats().gradient_norm / norms[i] - 1));
    }
    for (const auto& info : session.parameters().table().parameters()) {
      session.parameters().for_each_piece(
          info.id, session.parameters().main(info.id), [&](const TensorPiece& piece, at::Tensor block) {
            const double expected = trajectory.read("final_norm." + piece.name)[0];
            const double norm = at::linalg_vector_norm(block, 2, {}, false, at::kDouble).item<double>();
            mine.weight_norm = std::max(mine.weight_norm, std::abs(norm / expected - 1));
          });
    }
    if (context.world.rank() == 0) worst = mine;
  });
  return worst;
}

TEST(Trajectory, FiftyStepsAreThoseOfPyTorch) {
  const Trajectory trajectory;
  ASSERT_EQ(trajectory.tokens.size(0), 50);
  for (const auto& [layout, ranks] : {std::pair{"ep=1", 1}, {"ep=2", 2}, {"dp=2", 2}}) {
    const Differences found = train(trajectory, recipe(trajectory, layout), ranks);
    RecordProperty(layout, std::to_string(found.loss));
    EXPECT_LT(found.loss, 2e-5) << layout;  // measured: 4e-6
    EXPECT_LT(found.gradient_norm, 2e-4) << layout;
    EXPECT_LT(found.weight_norm, 1e-5) << layout;
  }
}

TEST(Trajectory, AnyOtherSettingShows) {
  const Trajectory trajectory;
  auto differs = [&](const char* what, auto&& change) {
    TrainConfig config = recipe(trajectory, "ep=1");
    change(config);
    EXPECT_GT(train(trajectory, config, 1).loss, 1e-3) << what;
  };
  differs("weight decay", [](TrainConfig& c) { c.weight_decay = 0; });
  differs("clipping", [](TrainConfig& c) { c.clip_grad = 0; });
  differs("beta2", [](TrainConfig& c) { c.adam_beta2 = 0.999; });
  differs("decay", [](TrainConfig& c) { c.lr_decay_style = LrDecayStyle::linear; });
}

}  // namespace
}  // namespace farskip
