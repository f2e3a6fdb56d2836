#include "train/step_profile.h"

#include <gmock/gmock.h>

#include "config/flops.h"

namespace farskip {
namespace {

constexpr int64_t seq_length = 64;

StageGraph graph_of(const ModelConfig& model) {
  return build_graph(model, Connectivity::standard(model.num_layers()), {Phase::train, {}, 1, Scope::step});
}

TEST(StepProfile, StagesHoldAllOfTheModelsProducts) {
  for (const char* name : {"small-moonlight", "deepseek-v2", "qwen3-30b-a3b", "mixtral-8x7b"}) {
    const ModelConfig model = load_model_config(name);
    const TokenFlops flops = model_flops(model, seq_length);
    double forward = 0, backward = 0;
    for (const StageRow& row : stage_table()) {
      forward += stage_flops(model, row.stage, Pass::forward, seq_length);
      backward += stage_flops(model, row.stage, Pass::backward, seq_length);
      if (row.has_weights) backward += stage_flops(model, row.stage, Pass::wgrad, seq_length);
    }
    EXPECT_NEAR(forward / flops.total(), 1, 1e-12) << name;
    EXPECT_NEAR(backward / flops.total(), 2, 1e-12) << name;
  }
}

TEST(StepProfile, RowsAddUpToTheStep) {
  const ModelConfig model = load_model_config("small-moonlight");
  const StageGraph graph = graph_of(model);
  CostTable costs;
  double sum_ms = 0;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    costs.us.push_back(graph.node(id).is_collective() ? 1e6 : 10.0 + id % 7);
    if (!graph.node(id).is_collective()) sum_ms += costs.us.back() / 1e3;
  }
  const double step_ms = sum_ms + 1.5, tokens = 256;
  const StepProfile profile = profile_step(graph, costs, model, seq_length, tokens, step_ms, at::kFloat);
  double rows_ms = 0;
  for (const auto& row : profile.rows) {
    rows_ms += row.ms;
    if (row.name == "elsewhere") {
      EXPECT_NEAR(row.ms, 1.5, 1e-9);
    }
  }
  EXPECT_NEAR(rows_ms, step_ms, 1e-9);
  EXPECT_NEAR(profile.flops() / (3 * tokens * model_flops(model, seq_length).total()), 1, 1e-9);
  EXPECT_GT(profile.peak, 1e8);
  EXPECT_NEAR(profile.utilization(), profile.flops() / (step_ms / 1e3) / profile.peak, 1e-12);
  const Table table = profile.table();
  check_table(table);
  EXPECT_EQ(table.rows.back()[0], "step");
  EXPECT_EQ(table.rows.back()[2], "100.0");
  EXPECT_THAT(table.note, ::testing::HasSubstr("GFLOP/s"));
}

}  // namespace
}  // namespace farskip
