// The plan of memory against counts by hand; tests/equivalence measures activations.

#include "sim/memory.h"

#include <gmock/gmock.h>

#include "schedule/hand_orders.h"
#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

struct Case {
  ModelConfig model = load_model_config("small-moonlight");
  int ep = 1;
  int num_microbatches = 1;
  int dp = 1;
  bool sharded = false;
  Recompute recompute = {};
  Workload load;

  Case() {
    load.seq_length = 256;
    load.bytes_per_value = 4;
  }
  MemoryPlan plan(const std::string& order = "paper") const {
    Layout layout;
    layout.ep = ep;
    layout.dp = dp;
    const StageGraph graph = build_graph(model, Connectivity::farskip(model.num_layers()),
                                         {Phase::train, layout, num_microbatches, Scope::step, sharded, recompute});
    return plan_memory(graph, order == "paper" ? paper_schedule(graph) : reference_schedule(graph), model, load);
  }
};

TEST(MemoryPlan, WeightsAndTheirCompanions) {
  Case one;
  const double parameters = static_cast<double>(one.model.num_parameters());
  const MemoryPlan fp32 = one.plan();
  EXPECT_DOUBLE_EQ(fp32.weights, 4 * parameters);
  EXPECT_EQ(fp32.masters, 0) << "the weights are the masters";
  EXPECT_DOUBLE_EQ(fp32.gradients, 4 * parameters);
  EXPECT_DOUBLE_EQ(fp32.moments, 8 * parameters);
  EXPECT_DOUBLE_EQ(fp32.total(), 16 * parameters + fp32.activations);

  one.load.bytes_per_value = 2;
  const MemoryPlan bf16 = one.plan();
  double routers = 0;
  for (int64_t layer = 0; layer < one.model.num_layers(); ++layer) {
    if (one.model.is_moe(layer)) routers += static_cast<double>(one.model.num_experts * one.model.hidden_size);
  }
  EXPECT_DOUBLE_EQ(bf16.weights, 2 * (parameters - routers) + 4 * routers);
  EXPECT_DOUBLE_EQ(bf16.masters, 4 * (parameters - routers));
  EXPECT_GT(bf16.activations / fp32.activations, 0.5);
  EXPECT_LT(bf16.activations / fp32.activations, 0.65);
}

TEST(MemoryPlan, ExpertRanksDivideTheExperts) {
  Case one, four;
  four.ep = 4;
  double experts = 0;
  for (int64_t layer = 0; layer < one.model.num_layers(); ++layer) {
    if (!one.model.is_moe(layer)) continue;
    experts += static_cast<double>(one.model.num_experts * 3 * one.model.hidden_size * one.model.moe_intermediate_size);
  }
  EXPECT_NEAR(one.plan().weights - four.plan().weights, 4 * experts * 3 / 4, 1);
}

TEST(MemoryPlan, FrozenWeightsHaveNoCompanions) {
  Case trained, frozen;
  trained.ep = frozen.ep = 2;
  trained.load.bytes_per_value = frozen.load.bytes_per_value = 2;
  frozen.load.frozen = {{{1, Stage::qkv}, 1000}, {{1, Stage::route}, 40}, {{1, Stage::experts}, 600}};
  const MemoryPlan a = trained.plan(), b = frozen.plan();
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_DOUBLE_EQ(a.gradients - b.gradients, 4 * (1000 + 40 + 300));
  EXPECT_DOUBLE_EQ(a.moments - b.moments, 8 * (1000 + 40 + 300));
  EXPECT_DOUBLE_EQ(a.masters - b.masters, 4 * (1000 + 300)) << "a router's weights are in fp32 themselves";
}

TEST(MemoryPlan, ReplicasShareOptimizerState) {
  Case whole, shared;
  whole.ep = shared.ep = 2;
  whole.dp = shared.dp = 4;
  whole.load.bytes_per_value = shared.load.bytes_per_value = 2;
  shared.sharded = true;
  const MemoryPlan a = whole.plan(), b = shared.plan();
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.gradients, b.gradients) << "of all microbatches, until they are reduced";
  // A rank's experts are shared by 4 ranks, everything else by 8.
  EXPECT_LT(b.moments, a.moments / 4);
  EXPECT_GT(b.moments, a.moments / 8);
  EXPECT_LT(b.masters, a.masters / 4);
  EXPECT_GT(b.masters, a.masters / 8);
}

TEST(MemoryPlan, RecomputationKeepsLess) {
  Case kept, core, half, all;
  core.recompute.core_attn = true;
  half.recompute.num_layers = static_cast<int>(half.model.num_layers()) / 2;
  all.recompute.num_layers = static_cast<int>(all.model.num_layers());
  const double everything = kept.plan().activations;
  EXPECT_NEAR(core.plan().activations / everything, 1, 0.05) << "the kernel keeps no scores: there is little to gain";
  EXPECT_LT(half.plan().activations, 0.7 * everything);
  EXPECT_LT(all.plan().activations, 0.4 * everything);
}

TEST(MemoryPlan, ActivationsGrowWithTokensNotWithMicrobatches) {
  Case one, twice, many;
  twice.load.sequences = 2;
  many.num_microbatches = 4;
  EXPECT_NEAR(twice.plan().activations / one.plan().activations, 2, 0.05);
  EXPECT_NEAR(many.plan("reference").activations / one.plan("reference").activations, 1, 0.05)
      << "one microbatch is differentiated before the next begins";
  EXPECT_THAT(one.plan().peak_at, HasSubstr("mb0.l"));
}

}  // namespace
}  // namespace farskip
