// AdamW against its formulas in double; the router's bias.

#include "train/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "model/initialize.h"
#include "tests/model/model_test.h"
#include "train/training_step.h"

namespace farskip {
namespace {

std::unique_ptr<ParameterSet> fresh_parameters(const ModelConfig& model) {
  auto set = std::make_unique<ParameterSet>(testing::make_table(model), ParameterOptions{});
  initialize(*set, {1, 0.1});
  set->update_values();
  return set;
}

/// A gradient that differs for every parameter, element and step.
at::Tensor made_up_gradient(int id, int step, at::IntArrayRef shape) {
  const int64_t n = c10::multiply_integers(shape);
  return at::sin(at::arange(n, at::kDouble) * 0.7 + id + 0.3 * step).mul(0.01 * (step + 1)).to(at::kFloat).view(shape);
}

/// Decoupled weight decay and Adam with bias correction (arXiv 1711.05101, algorithm 2), element by element in fp64.
struct ReferenceAdamW {
  std::map<int, at::Tensor> weight, mean, square;

  void step(const ParameterTable& table, const TrainConfig& config, int t, double lr, double divisor) {
    for (const auto& info : table.parameters()) {
      at::Tensor& w = weight[info.id];
      const at::Tensor g = made_up_gradient(info.id, t - 1, w.sizes()).to(at::kDouble) / divisor;
      if (t == 1) mean[info.id] = square[info.id] = at::zeros_like(w);
      mean[info.id] = config.adam_beta1 * mean[info.id] + (1 - config.adam_beta1) * g;
      square[info.id] = config.adam_beta2 * square[info.id] + (1 - config.adam_beta2) * g * g;
      const at::Tensor m = mean[info.id] / (1 - std::pow(config.adam_beta1, t));
      const at::Tensor v = square[info.id] / (1 - std::pow(config.adam_beta2, t));
      const bool matrix = info.role != Role::norm && info.role != Role::bias;
      w = w * (1 - (matrix ? lr * config.weight_decay : 0.0)) - lr * m / (v.sqrt() + config.adam_eps);
    }
  }
};

class AdamWTest : public ::testing::Test {
 protected:
  /// Three steps of both; the largest difference of any weight.
  double difference(const TrainConfig& config) {
    const auto parameters = fresh_parameters(testing::small_config());
    const ParameterTable& table = parameters->table();
    ParameterShards shards(*parameters, Layout{}, 0, false);
    AdamW optimizer(*parameters, shards, config);
    ReferenceAdamW reference;
    for (const auto& info : table.parameters())
      reference.weight[info.id] = parameters->main(info.id).to(at::kDouble).clone();
    for (int t = 1; t <= 3; ++t) {
      double squares = 0;
      for (const auto& info : table.parameters()) {
        const at::Tensor gradient = made_up_gradient(info.id, t - 1, parameters->main(info.id).sizes());
        parameters->main_grad(info.id).copy_(gradient);
        squares += gradient.to(at::kDouble).square().sum().item<double>();
      }
      const auto norms = optimizer.squared_norms();
      EXPECT_NEAR(norms.replicated + norms.experts, squares, 1e-6 * squares);
      EXPECT_GT(norms.experts, 0);
      norm_ = std::sqrt(squares);
      const double divisor = config.clip_grad > 0 ? std::max(1.0, norm_ / config.clip_grad) : 1;
      const double lr = 0.01 / t;
      optimizer.step({lr, lr, config.weight_decay}, norm_);
      reference.step(table, config, t, lr, divisor);
    }
    EXPECT_EQ(optimizer.num_steps(), 3);
    double largest = 0;
    for (const auto& info : table.parameters()) {
      const at::Tensor main = parameters->main(info.id);
      EXPECT_TRUE(at::equal(main, parameters->value(info.id).to(at::kFloat))) << info.name;
      largest = std::max(largest, (main.to(at::kDouble) - reference.weight[info.id]).abs().max().item<double>());
    }
    return largest;
  }

  double norm_ = 0;  ///< of the last step's gradient
};

TEST_F(AdamWTest, FollowsItsFormulas) {
  TrainConfig config;
  config.weight_decay = 0.5;
  config.clip_grad = 0;
  EXPECT_LT(difference(config), 1e-6);
}

TEST_F(AdamWTest, ClipsByTheGlobalNorm) {
  TrainConfig config;
  config.weight_decay = 0.5;
  config.adam_eps = 1e-3;  // large enough that the size of gradients shows in the weights
  config.clip_grad = 0.05;
  EXPECT_LT(difference(config), 1e-6);
  EXPECT_GT(norm_, 10 * config.clip_grad) << "the gradient was to be clipped";
  config.clip_grad = 1e6;
  EXPECT_LT(difference(config), 1e-6);
}

TEST_F(AdamWTest, DecaysMatricesAlone) {
  const auto parameters = fresh_parameters(testing::small_config());
  TrainConfig config;
  config.weight_decay = 0.5;
  ParameterShards shards(*parameters, Layout{}, 0, false);
  AdamW optimizer(*parameters, shards, config);
  std::vector<at::Tensor> before;
  for (int id = 0; id < parameters->size(); ++id) {
    before.push_back(parameters->main(id).clone());
    parameters->main_grad(id).zero_();
  }
  optimizer.step({0.1, 0.1, config.weight_decay}, 0);
  int decayed = 0, kept = 0;
  for (const auto& info : parameters->table().parameters()) {
    const bool vector = info.role == Role::norm || info.role == Role::bias;
    const at::Tensor expected = vector ? before[info.id] : before[info.id] * 0.95;
    EXPECT_TRUE(at::allclose(parameters->main(info.id), expected, 1e-6, 1e-9)) << info.name;
    ++(vector ? kept : decayed);
  }
  EXPECT_GT(decayed, 0);
  EXPECT_GT(kept, 0);
}

// Megatron's rule (megatron/core/optimizer): no weight decay for names that end in ".bias" and for vectors.
TEST(WeightDecay, ExcludesBiasesAndVectorsAlone) {
  for (const char* preset :
       {"small-moonlight", "moonlight-16b-a3b", "deepseek-v2-lite", "qwen3-30b-a3b", "olmoe-1b-7b"}) {
    const ParameterTable table(load_model_config(preset));
    for (const auto& info : table.parameters()) {
      const bool bias = info.name.ends_with(".bias") || info.name.ends_with("_bias");
      EXPECT_EQ(info.decays(), !bias && info.shape.size() > 1) << preset << ": " << info.name;
    }
  }
}

TEST_F(AdamWTest, EmbeddingAndHeadHaveTheirOwnRate) {
  const auto parameters = fresh_parameters(testing::small_config());
  TrainConfig config;
  ParameterShards shards(*parameters, Layout{}, 0, false);
  AdamW optimizer(*parameters, shards, config);
  std::vector<at::Tensor> before;
  for (int id = 0; id < parameters->size(); ++id) {
    before.push_back(parameters->main(id).clone());
    parameters->main_grad(id).fill_(1);
  }
  optimizer.step({0.01, 0, 0}, 0);
  for (const auto& info : parameters->table().parameters()) {
    const bool still = info.name == "model.embed_tokens.weight" || info.name == "lm_head.weight";
    EXPECT_EQ(at::equal(parameters->main(info.id), before[info.id]), still) << info.name;
  }
}

TEST(RouterBias, RisesForIdleExpertsAndFallsForCrowdedOnes) {
  ModelConfig model = testing::small_config();
  const auto parameters = fresh_parameters(model);
  TrainConfig config;
  config.moe_router_bias_update_rate = 0.25;
  ParameterShards shards(*parameters, Layout{}, 0, false);
  TrainingStep step(model, *parameters, shards, config, Layout{}, 0);
  step.begin({0, config.global_batch_size});
  for (int id = 0; id < parameters->size(); ++id) parameters->main_grad(id).zero_();
  // Loss, auxiliary loss, z-loss, squared norm of experts, requests to save and to end, then the loads of the two MoE
  // layers: means 10 and 5.
  step.local_stats({}, {});
  step.optimize(at::tensor({2.5, 0.5, 0.125, 0.0, 0.0, 0.0, 25.0, 5.0, 10.0, 0.0, 5.0, 5.0, 5.0, 5.0}, at::kDouble));
  EXPECT_DOUBLE_EQ(step.stats().loss, 2.5);
  EXPECT_DOUBLE_EQ(step.stats().aux_loss, 0.5);
  EXPECT_DOUBLE_EQ(step.stats().z_loss, 0.125);
  ASSERT_EQ(step.stats().load.size(), 3u);
  EXPECT_TRUE(step.stats().load[0].empty()) << "a dense layer";
  EXPECT_EQ(step.stats().load[1], (std::vector<int64_t>{25, 5, 10, 0}));
  EXPECT_TRUE(at::equal(parameters->buffer(0), at::tensor({-0.25f, 0.25f, 0.0f, 0.25f})));
  EXPECT_TRUE(at::equal(parameters->buffer(1), at::zeros({4}))) << "even loads change nothing";
}

}  // namespace
}  // namespace farskip
