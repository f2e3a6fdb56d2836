// The staged execution holds no more than a plain autograd graph of the same model: values go with their last reader,
// and what a segment keeps for its backward goes with its backward.

#include "exec/memory_meter.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "exec/executor.h"
#include "model/initialize.h"
#include "model/plain_model.h"
#include "sim/memory.h"
#include "tests/equivalence/trial.h"
#include "transport/loopback.h"

namespace farskip::test {
namespace {

/// Hidden size 128, 6 layers.
ModelConfig memory_model() {
  ModelConfig config = load_model_config("small-moonlight");
  config.layers.resize(6);
  return config;
}

struct Peaks {
  int64_t plain = 0, reference = 0, paper = 0;
  double planned_reference = 0, planned_paper = 0;
};

/// Most bytes held at once during a step, weights and gradients (which exist before it) not counted.
Peaks measure(const ModelConfig& config, at::ScalarType dtype, int64_t num_tokens) {
  const Connectivity connectivity = Connectivity::farskip(config.num_layers());
  ParameterSet parameters(std::make_shared<const ParameterTable>(config), {.dtype = dtype});
  initialize(parameters, {.seed = 1});
  parameters.update_values();
  at::Tensor tokens = at::arange(num_tokens, at::kLong).mul_(7).remainder_(config.vocab_size).view({1, -1});
  const Batch batch{tokens, tokens.roll(-1, 1), static_cast<double>(num_tokens)};

  Peaks peaks;
  const nn::ModelWeights weights = differentiable_copy(parameters);
  plain_forward(config, connectivity, weights, batch).loss.backward();  // makes the gradients
  {
    const MemoryMeter meter;
    plain_forward(config, connectivity, weights, batch).loss.backward();
    peaks.plain = meter.peak_bytes();
    EXPECT_LT(meter.live_bytes(), peaks.plain / 100);
  }
  run_ranks(1, [&](World& world) {
    const StageMath math(config, parameters.weights(), num_tokens, {});
    const StageGraph graph = build_graph(config, connectivity, {Phase::train, {}, 1, Scope::gradients});
    const Communicators communicators = Communicators::make(world, {});
    for (const char* name : {"reference", "paper"}) {
      Executor executor(graph, named_order(name)(graph, config), math, parameters, communicators);
      executor.run({batch});
      const MemoryMeter meter;
      const StepResult result = executor.run({batch});
      const bool paper = std::string(name) == "paper";
      (paper ? peaks.paper : peaks.reference) = meter.peak_bytes();
      Workload load;
      load.seq_length = static_cast<double>(num_tokens);
      load.bytes_per_value = static_cast<double>(c10::elementSize(dtype));
      const MemoryPlan plan = plan_memory(graph, executor.schedule(), config, load);
      (paper ? peaks.planned_paper : peaks.planned_reference) = plan.activations;
      fmt::print("{}: {:.3f} of it predicted, at {}\n", name,
                 plan.activations / static_cast<double>(meter.peak_bytes()), plan.peak_at);
    }
  });
  return peaks;
}

class Memory : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(Memory, PeakIsThatOfAPlainGraph) {
  const Peaks peaks = measure(memory_model(), GetParam(), 512);
  auto ratio = [&](int64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(peaks.plain); };
  fmt::print("{}: plain graph {:.1f} MiB; reference {:.3f}, paper {:.3f} of it\n", c10::toString(GetParam()),
             static_cast<double>(peaks.plain) / (1 << 20), ratio(peaks.reference), ratio(peaks.paper));
  EXPECT_GT(peaks.plain, 1 << 20);
  EXPECT_LT(ratio(peaks.reference), 1.10);
  EXPECT_LT(ratio(peaks.paper), 1.10);
  EXPECT_GT(ratio(peaks.reference), 0.5);
  // Predicted before the run.
  EXPECT_NEAR(peaks.planned_reference / static_cast<double>(peaks.reference), 1, 0.1);
  EXPECT_NEAR(peaks.planned_paper / static_cast<double>(peaks.paper), 1, 0.1);
}

INSTANTIATE_TEST_SUITE_P(Types, Memory, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return info.param == at::kFloat ? "fp32" : "bf16"; });

struct Share {
  double measured = 0, planned = 0;
};

/// Most bytes that the ranks hold at once in the paper's order, and what was predicted for their loads.
Share peak_of_ranks(int num_ranks, Recompute recompute, int num_microbatches = 1) {
  const ModelConfig config = memory_model();
  constexpr int64_t num_tokens = 512;
  Layout layout;
  layout.ep = num_ranks;
  GraphOptions options{Phase::train, layout, num_microbatches, Scope::gradients, false, recompute};
  const StageGraph graph = build_graph(config, Connectivity::farskip(config.num_layers()), options);
  const Schedule schedule = named_order("paper")(graph, config);
  std::vector<double> planned(num_ranks);
  auto worlds = make_loopback(num_ranks);
  const MemoryMeter meter;
  run_ranks(worlds, [&](World& world) {
    ParameterSet parameters(std::make_shared<const ParameterTable>(config),
                            {.expert_rank = world.rank(), .expert_ranks = num_ranks});
    initialize(parameters, {.seed = 1});
    const StageMath math(config, parameters.weights(), num_tokens,
                         {.expert_ranks = num_ranks,
                          .recompute_norms = recompute.layernorm,
                          .recompute_activations = recompute.moe_act});
    const Communicators communicators = Communicators::make(world, layout);
    Executor executor(graph, schedule, math, parameters, communicators);
    std::vector<Batch> batches;
    for (int m = 0; m < num_microbatches; ++m) {
      const at::Tensor tokens =
          at::arange(num_tokens, at::kLong).mul_(7 + world.rank() + m).remainder_(config.vocab_size).view({1, -1});
      batches.push_back({tokens, tokens.roll(-1, 1), static_cast<double>(num_tokens)});
    }
    executor.run(batches);  // makes the gradients
    communicators.world->barrier();
    const MemoryMeter joined(&meter);
    const StepResult result = executor.run(batches);
    Workload load;
    load.seq_length = num_tokens;
    load.bytes_per_value = 4;
    double rows = 0, layers = 0;
    for (const LayerRouting& routing : result.microbatches[0].routing) {
      if (!routing.load.defined()) continue;
      rows += static_cast<double>(
          std::accumulate(routing.plan.recv_rows.begin(), routing.plan.recv_rows.end(), int64_t{0}));
      ++layers;
    }
    load.skew = rows / layers / static_cast<double>(num_tokens * config.top_k);
    planned[world.rank()] = plan_memory(graph, schedule, config, load).activations;
  });
  return {static_cast<double>(meter.peak_bytes()), std::accumulate(planned.begin(), planned.end(), 0.0)};
}

TEST(MemoryOfRanks, IsAsPredictedAndLessWithRecomputation) {
  std::map<std::string, double> measured;
  const std::pair<const char*, Recompute> cases[] = {
      {"nothing", {}},
      {"core_attn", {.core_attn = true}},
      {"half", {.num_layers = 3}},
      {"full", {.num_layers = 6}},
      {"layernorm", {.layernorm = true}},
      {"moe_act", {.moe_act = true}},
      {"all modules", {.core_attn = true, .layernorm = true, .moe_act = true}}};
  for (const int num_ranks : {1, 2}) {
    for (const auto& [name, recompute] : cases) {
      const Share share = peak_of_ranks(num_ranks, recompute);
      fmt::print("{} ranks, recomputing {}: {:.2f} MiB, {:.3f} of it predicted\n", num_ranks, name,
                 share.measured / (1 << 20), share.planned / share.measured);
      EXPECT_NEAR(share.planned / share.measured, 1, 0.12) << num_ranks << " ranks, " << name;
      measured[name] = share.measured;
    }
    EXPECT_NEAR(measured["core_attn"] / measured["nothing"], 1, 0.1) << "the kernel keeps no scores";
    EXPECT_LT(measured["layernorm"], measured["nothing"]);
    EXPECT_LT(measured["moe_act"], measured["nothing"]);
    EXPECT_LT(measured["all modules"], 0.9 * measured["nothing"]);
    EXPECT_LT(measured["half"], 0.8 * measured["nothing"]);
    EXPECT_LT(measured["full"], 0.5 * measured["nothing"]);
  }
}

TEST(MemoryMeter, CountsWhatLivesAtOnce) {
  const at::Tensor before = at::zeros({1 << 20}, at::kByte);
  const MemoryMeter meter;
  {
    const at::Tensor a = at::zeros({1 << 20}, at::kByte);
    { const at::Tensor b = at::zeros({1 << 20}, at::kByte); }
    const at::Tensor c = at::zeros({1 << 19}, at::kByte);
    EXPECT_EQ(meter.live_bytes(), (1 << 20) + (1 << 19));
  }
  EXPECT_EQ(meter.live_bytes(), 0);
  EXPECT_EQ(meter.peak_bytes(), 2 << 20);
}

}  // namespace
}  // namespace farskip::test
