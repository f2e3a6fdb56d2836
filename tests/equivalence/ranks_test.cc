// One, two and four ranks on the same global batch. Data-parallel ranks leave the same bits as one rank with as many
// microbatches, since they add the same terms in the same order. Where experts are divided, their products run over
// rows of several ranks: the largest difference is bounded (docs/numerics.md says why, and what was measured).

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include "tests/equivalence/trial.h"

namespace farskip::test {
namespace {

/// What all ranks of a trial hold together after its steps.
struct Whole {
  std::vector<double> losses;                           ///< per step
  std::vector<std::vector<std::vector<int64_t>>> load;  ///< per step
  std::map<std::string, at::Tensor> gradients;          ///< of the first step
  std::map<std::string, at::Tensor> weights;            ///< after the last
};

Whole run_whole(const Trial& trial) {
  Whole whole;
  std::mutex mutex;
  on_ranks(trial, [&](World& world) {
    at::set_num_threads(1);  // on every layout: products of few rows have other bits with two threads
    TrainingSession session = make_session(trial, world);
    for (int step = 0; step < trial.num_steps; ++step) {
      session.step(step, named_order("paper")(session.graph(), session.model().config));
      const std::lock_guard lock(mutex);
      if (step == 0) whole.gradients.merge(named_pieces(session.parameters(), true));
      if (step + 1 == trial.num_steps) whole.weights.merge(named_pieces(session.parameters(), false));
      if (world.rank() > 0) continue;
      whole.losses.push_back(session.stats().loss);
      whole.load.push_back(session.stats().load);
    }
  });
  return whole;
}

/// The same global batch of 4 sequences on every layout.
Trial on(const Layout& layout, const std::string& model, bool bf16) {
  return {.model = model, .layout = layout, .num_microbatches = 4 / layout.world(), .bf16 = bf16};
}

using Pieces = std::map<std::string, at::Tensor>;

/// The worst tensor's size(difference) / size(tensor).
template <typename Size>
double relative(const Pieces& a, const Pieces& b, Size size) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (const auto& [name, tensor] : a) {
    const double whole = size(tensor), difference = size(tensor - b.at(name));
    if (whole > 0) worst = std::max(worst, difference / whole);
  }
  return worst;
}
double relative_maximum(const Pieces& a, const Pieces& b) {
  return relative(a, b, [](const at::Tensor& x) { return x.abs().max().item<double>(); });
}
double relative_norm(const Pieces& a, const Pieces& b) {
  return relative(a, b, [](const at::Tensor& x) { return x.norm().item<double>(); });
}

TEST(Ranks, OfDataParallelismLeaveTheBitsOfOne) {
  for (const char* model : {"moonlight", "v2", "qwen3", "llama4"}) {
    for (const bool bf16 : {false, true}) {
      const Whole one = run_whole(on({}, model, bf16)), four = run_whole(on({.dp = 4}, model, bf16));
      EXPECT_EQ(one.losses, four.losses) << model;
      EXPECT_EQ(one.load, four.load) << model;
      EXPECT_EQ(relative_maximum(one.gradients, four.gradients), 0) << model;
      EXPECT_EQ(relative_maximum(one.weights, four.weights), 0) << model;
    }
  }
}

// Two data-parallel ranks with two microbatches each add (a + b) + (c + d) where one rank adds ((a + b) + c) + d.
TEST(Ranks, WithSumsInAnotherOrderAgree) {
  const Whole one = run_whole(on({}, "moonlight", false)), two = run_whole(on({.dp = 2}, "moonlight", false));
  EXPECT_DOUBLE_EQ(one.losses[0], two.losses[0]);
  const double gradients = relative_maximum(one.gradients, two.gradients);
  fmt::print("dp=2, 2 microbatches each: gradients {:.1e}\n", gradients);
  EXPECT_GT(gradients, 0);
  EXPECT_LT(gradients, 2e-6);
}

TEST(Ranks, OfPackedSequencesAgree) {
  for (const char* model : {"moonlight", "v2", "qwen3", "llama4"}) {
    Trial alone = on({}, model, false), experts = on({.ep = 2}, model, false), data = on({.dp = 4}, model, false);
    for (Trial* trial : {&alone, &experts, &data}) trial->packed = true;
    const Whole one = run_whole(alone), two = run_whole(experts), four = run_whole(data);
    EXPECT_EQ(one.losses, four.losses) << model;
    EXPECT_EQ(relative_maximum(one.weights, four.weights), 0) << model;
    EXPECT_EQ(one.load[0], two.load[0]) << model;
    EXPECT_LT(std::abs(one.losses[0] - two.losses[0]), 1e-6 * one.losses[0]) << model;
    EXPECT_LT(relative_maximum(one.gradients, two.gradients), 1e-5) << model;
    alone.packed = false;
    EXPECT_NE(run_whole(alone).losses, one.losses) << "the documents were to matter, " << model;
  }
}

// One sequence on each of two ranks: the global auxiliary loss is that of both in one microbatch of one rank. The v2
// model's router has no bias that would balance it by itself.
TEST(Ranks, ShareTheGlobalAuxiliaryLoss) {
  const auto run = [](const Layout& layout, int64_t micro_batch_size, LoadBalancing balancing, double* loss) {
    Trial trial{.model = "v2", .layout = layout, .num_microbatches = 1, .balancing = balancing};
    TrainConfig config = trial.config();
    config.micro_batch_size = micro_batch_size;
    config.global_batch_size = 4;
    config.moe_aux_loss_coeff = 1.0;
    Pieces gradients;
    std::mutex mutex;
    on_ranks(trial, [&](World& world) {
      at::set_num_threads(1);
      TrainingSession session(config, world, synthetic_samples(config.seq_length, 48, 11));
      session.step(0, named_order("paper")(session.graph(), session.model().config));
      const std::lock_guard lock(mutex);
      gradients.merge(named_pieces(session.parameters(), true));
      if (world.rank() == 0) *loss = session.stats().aux_loss;
    });
    return gradients;
  };
  using enum LoadBalancing;
  double together_loss = 0, loss = 0;
  const Pieces together = run({}, 4, aux_loss, &together_loss);
  for (const Layout& layout : {Layout{.dp = 4}, Layout{.ep = 2, .dp = 2}, Layout{.ep = 4}}) {
    const Pieces apart = run(layout, 1, global_aux_loss, &loss);
    EXPECT_NEAR(loss, together_loss, 1e-6 * loss) << layout.to_string();
    EXPECT_LT(relative_maximum(apart, together), 1e-5) << layout.to_string();
  }
  // A control: the loads of each rank alone are another loss.
  EXPECT_GT(relative_maximum(run({.dp = 4}, 1, aux_loss, &loss), together), 1e-3);
  EXPECT_GT(std::abs(loss - together_loss), 1e-3 * together_loss);
}

class ExpertRanks : public ::testing::TestWithParam<std::tuple<std::string, std::string, bool>> {};

TEST_P(ExpertRanks, AgreeWithOne) {
  const auto& [model, layout, bf16] = GetParam();
  const Whole one = run_whole(on({}, model, bf16)), many = run_whole(on(Layout::parse(layout), model, bf16));
  const double loss = std::abs(one.losses[0] - many.losses[0]) / one.losses[0];
  const double gradients = relative_maximum(one.gradients, many.gradients),
               weights = relative_norm(one.weights, many.weights);
  fmt::print("{} {} {}: loss {:.1e}, gradients {:.1e}, weights after {} steps {:.1e}\n", model, layout,
             bf16 ? "bf16" : "fp32", loss, gradients, one.losses.size(), weights);
  EXPECT_EQ(one.load[0], many.load[0]);
  EXPECT_LT(loss, bf16 ? 1e-3 : 1e-6);
  EXPECT_LT(gradients, bf16 ? 0.05 : 1e-5);
  EXPECT_LT(weights, bf16 ? 0.05 : 2e-4);
}

INSTANTIATE_TEST_SUITE_P(All, ExpertRanks,
                         ::testing::Combine(::testing::Values("moonlight", "v2", "qwen3", "llama4"),
                                            ::testing::Values("ep=2", "ep=4", "ep=2,dp=2"), ::testing::Bool()));

}  // namespace
}  // namespace farskip::test
