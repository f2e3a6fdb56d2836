// Modelled costs against the formulas, by hand.

#include "sim/cost_model.h"

#include <gmock/gmock.h>

#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using testing::error_of;
using testing::GraphCase;
using ::testing::HasSubstr;

TEST(CostModel, BytesOfCollectives) {
  GraphCase made{"m"};
  made.layout = "ep=4,dp=2";
  const ModelConfig model = made.model();  // H 64, K 2, E 8
  Workload load;
  load.sequences = 2;
  load.seq_length = 128;
  load.skew = 1.5;
  auto bytes = [&](const StageGraph& graph, const char* node) {
    return collective_bytes(graph, model, load, graph.find(node));
  };
  const StageGraph train = made.graph();
  EXPECT_DOUBLE_EQ(bytes(train, "mb0.l0.fwd.dispatch"), 256 * 2 * 64 * 2 * 1.5);
  EXPECT_DOUBLE_EQ(bytes(train, "mb0.l0.bwd.combine"), 256 * 2 * 64 * 2 * 1.5);
  EXPECT_DOUBLE_EQ(bytes(train, "mb0.l0.fwd.counts"), 8 * 8);
  EXPECT_DOUBLE_EQ(bytes(train, "l0.step.grad_reduce_experts"), 4 * 3 * 64 * 32 * 8 / 4);
  EXPECT_DOUBLE_EQ(bytes(train, "embed.step.grad_reduce"), 4 * 256 * 64);
  const StageGraph gathered = GraphCase{"m", "farskip", Phase::prefill, "ep=4"}.graph();
  EXPECT_DOUBLE_EQ(bytes(gathered, "mb0.l0.fwd.gather"), 4 * 256 * 64 * 2);
  const StageGraph reduced = GraphCase{"m", "farskip", Phase::prefill, "tp=4"}.graph();
  EXPECT_DOUBLE_EQ(bytes(reduced, "mb0.l0.fwd.reduce_attn"), 256 * 64 * 2);
}

TEST(CostModel, TimeOfCollectives) {
  // 3/4 of 1 MB at 1 GB/s, behind 10 us; an all-reduce moves it twice.
  EXPECT_DOUBLE_EQ(collective_us(false, 1e6, 4, 1e9, 10), 10 + 750);
  EXPECT_DOUBLE_EQ(collective_us(true, 1e6, 4, 1e9, 10), 10 + 1500);
  EXPECT_DOUBLE_EQ(collective_us(false, 1e6, 1, 1e9, 10), 0);  // alone
}

/// A machine whose only limit is matrix products, 1 FLOP a microsecond.
Machine matrix_machine() {
  Machine m;
  m.matrix_flops = m.grouped_flops = m.attention_flops = 1e6;
  m.memory_bytes_per_s = m.link_bytes_per_s = 1e30;
  return m;
}

TEST(CostModel, ComputeOfStages) {
  GraphCase made{"dm"};
  const ModelConfig model = made.model();
  const StageGraph graph = made.graph();
  Workload load;
  load.sequences = 1;
  load.seq_length = 128;
  const CostTable costs = model_costs(graph, model, matrix_machine(), load);
  auto us = [&](const char* node) { return costs.us[graph.find(node)]; };
  const double T = 128, H = 64;
  EXPECT_DOUBLE_EQ(us("mb0.l1.fwd.shared"), 6 * T * H * 64);
  EXPECT_DOUBLE_EQ(us("mb0.l0.fwd.dense"), 6 * T * H * 160);
  EXPECT_DOUBLE_EQ(us("mb0.l1.fwd.qkv"), 2 * T * H * (3 * 64));
  EXPECT_DOUBLE_EQ(us("mb0.l1.fwd.attn_out"), 2 * T * 64 * H);
  EXPECT_DOUBLE_EQ(us("mb0.l1.fwd.attn_core"), 2 * T * 4 * (16 + 16) * 64);  // 64 positions on average
  EXPECT_DOUBLE_EQ(us("mb0.fwd.head"), 2 * T * H * 256);
  EXPECT_DOUBLE_EQ(us("mb0.l1.bwd.shared"), us("mb0.l1.fwd.shared"));
  EXPECT_DOUBLE_EQ(us("mb0.l1.wgrad.shared"), us("mb0.l1.fwd.shared"));
  EXPECT_DOUBLE_EQ(us("mb0.l1.bwd.attn_core"), 2.5 * us("mb0.l1.fwd.attn_core"));
  // 128 * 2 rows over 4 local experts: 64 each, which reach 64 / (64 + 512) of the grouped products' speed.
  EXPECT_DOUBLE_EQ(us("mb0.l1.fwd.experts"), 6 * H * 32 * (T * 2) * (64 + 512) / 64);
}

TEST(CostModel, FrozenWeightsHaveNoGradientsToMakeOrReduce) {
  GraphCase made{"dm"};
  made.layout = "ep=2,dp=2";
  const ModelConfig model = made.model();
  const StageGraph graph = made.graph();
  const double experts = 3 * 64 * 32 * 8, shared = 3 * 64 * 64;
  Workload all, part;
  part.frozen = {{{1, Stage::experts}, experts}, {{1, Stage::shared}, shared / 4}};
  auto bytes = [&](const Workload& load, const char* node) {
    return collective_bytes(graph, model, load, graph.find(node));
  };
  EXPECT_EQ(bytes(part, "l1.step.grad_reduce_experts"), 0);
  EXPECT_DOUBLE_EQ(bytes(all, "l1.step.grad_reduce") - bytes(part, "l1.step.grad_reduce"), 4 * shared / 4);
  EXPECT_EQ(bytes(all, "l0.step.grad_reduce"), bytes(part, "l0.step.grad_reduce"));

  const CostTable before = model_costs(graph, model, matrix_machine(), all);
  const CostTable after = model_costs(graph, model, matrix_machine(), part);
  auto ratio = [&](const char* node) { return after.us[graph.find(node)] / before.us[graph.find(node)]; };
  EXPECT_EQ(ratio("mb0.l1.wgrad.experts"), 0);
  EXPECT_DOUBLE_EQ(ratio("mb0.l1.wgrad.shared"), 0.75);
  EXPECT_EQ(ratio("mb0.l1.wgrad.qkv"), 1);
  EXPECT_EQ(ratio("mb0.l1.bwd.experts"), 1) << "gradients pass through";
  EXPECT_LT(ratio("step.optimizer"), 1);
}

TEST(CostModel, ChunksBoundTheWorkOfAttention) {
  GraphCase made{"mm"};
  ModelConfig model = made.model();
  model.attention.layers = {{.rotary = true, .chunk = 32}, {.rotary = false, .chunk = 0}};
  Workload load;
  load.seq_length = 128;
  const CostTable costs = model_costs(made.graph(), model, matrix_machine(), load);
  auto us = [&](const char* node) { return costs.us[made.graph().find(node)]; };
  EXPECT_DOUBLE_EQ(us("mb0.l1.fwd.attn_core") / us("mb0.l0.fwd.attn_core"), 128.0 / 32);
}

TEST(CostModel, GatheringRunsTheSameNumberOfRowsAsExchanging) {
  // Every rank sees all tokens but runs only its own experts on them.
  const GraphCase gather{"m", "farskip", Phase::prefill, "ep=4"};
  const GraphCase exchange{"m", "farskip", Phase::prefill, "ep=4,exchange=a2a"};
  auto experts_us = [](const GraphCase& made) {
    const StageGraph graph = made.graph();
    return model_costs(graph, made.model(), matrix_machine(), Workload{}).us[graph.find("mb0.l0.fwd.experts")];
  };
  EXPECT_DOUBLE_EQ(experts_us(gather), experts_us(exchange));
}

TEST(CostModel, TensorParallelRanksDivideTheWork) {
  auto cost = [](const char* layout, const char* node) {
    const GraphCase made{"m", "farskip", Phase::prefill, layout};
    const StageGraph graph = made.graph();
    return model_costs(graph, made.model(), matrix_machine(), Workload{}).us[graph.find(node)];
  };
  for (const char* node : {"mb0.l0.fwd.qkv", "mb0.l0.fwd.attn_core", "mb0.l0.fwd.shared"}) {
    EXPECT_DOUBLE_EQ(cost("tp=4", node), cost("ep=1", node) / 4) << node;
  }
}

TEST(CostModel, DecodeReadsTheCacheAndOnlyTouchedExperts) {
  const GraphCase made{"m", "farskip", Phase::decode, "ep=1"};
  const StageGraph graph = made.graph();
  Machine memory = matrix_machine();
  memory.matrix_flops = memory.grouped_flops = memory.attention_flops = 1e30;
  memory.memory_bytes_per_s = 1e6;  // one byte a microsecond
  Workload load;
  load.decode = true;
  auto cost = [&](double sequences, double cache, const char* node) {
    load.sequences = sequences;
    load.seq_length = cache;
    return model_costs(graph, made.model(), memory, load).us[graph.find(node)];
  };
  // Keys and values of 4 heads of 16, in 2 bytes.
  const char* core = "mb0.l0.fwd.attn_core";
  EXPECT_NEAR(cost(3, 1100, core) - cost(3, 1000, core), 3 * 100 * 4 * (16 + 16) * 2, 1e-6);
  // One token touches about 2 of 8 experts, many touch all.
  const double weights = 3.0 * 64 * 32 * 8 * 2;
  EXPECT_LT(cost(1, 1000, "mb0.l0.fwd.experts"), 0.3 * weights);
  EXPECT_GT(cost(100, 1000, "mb0.l0.fwd.experts"), weights);
}

TEST(Machines, UnknownNamesListTheKnownOnes) {
  EXPECT_EQ(machine("mi325x").name, "mi325x");
  EXPECT_THAT(error_of([] { machine("mi999"); }), HasSubstr("'mi999' is not a known machine; there are mi300x"));
}

}  // namespace
}  // namespace farskip
