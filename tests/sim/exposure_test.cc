// Which collectives no order can hide.

#include "sim/exposure.h"

#include <gtest/gtest.h>

#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using testing::GraphCase;

Exposure hint_for(const StageGraph& graph, double collective_us, const char* name) {
  CostTable costs;
  for (const Node& node : graph.nodes()) costs.us.push_back(node.is_collective() ? collective_us : 1);
  CollectiveTiming timing;
  timing.name = name;
  return exposure_hint(graph, costs)(timing);
}

TEST(ExposureHint, KnowsTheEndsOfAPass) {
  const StageGraph forward = GraphCase{"mmmm", "farskip", Phase::train, "ep=2", true, 1, Scope::forward}.graph();
  // Under the last combine can stand shared experts and, if an order keeps it back, attention: qkv, core and output.
  EXPECT_EQ(hint_for(forward, 4.5, "mb0.l3.fwd.combine"), Exposure::first_or_last_layer);
  EXPECT_EQ(hint_for(forward, 4, "mb0.l3.fwd.combine"), Exposure::none);
  // Under the one before, attention of the last layer as well.
  EXPECT_EQ(hint_for(forward, 4.5, "mb0.l2.fwd.combine"), Exposure::none);
  // However long: in the middle, the reason is the window, not the place.
  EXPECT_EQ(hint_for(forward, 1000, "mb0.l2.fwd.combine"), Exposure::none);
  // Nor is an end to blame for what fails in every layer.
  EXPECT_EQ(hint_for(forward, 1000, "mb0.l0.fwd.dispatch"), Exposure::none);
  EXPECT_EQ(hint_for(forward, 1000, "no such node"), Exposure::none);
}

TEST(ExposureHint, WeightGradientsAndOtherMicrobatchesCanStandUnderAnEnd) {
  GraphCase made{"mmmm"};
  // The first collective of a backward: weight gradients of the head and of this layer can wait for it.
  EXPECT_EQ(hint_for(made.graph(), 4.5, "mb0.l3.bwd.combine"), Exposure::none);
  EXPECT_EQ(hint_for(made.graph(), 4.5, "mb0.l3.fwd.combine"), Exposure::first_or_last_layer);
  made.num_microbatches = 2;
  EXPECT_EQ(hint_for(made.graph(), 4.5, "mb0.l3.fwd.combine"), Exposure::none);
  // Nothing is left to do beside the statistics, whatever the number of microbatches.
  EXPECT_EQ(hint_for(made.graph(), 2, "step.stats"), Exposure::first_or_last_layer);
}

TEST(ExposureHint, KnowsWhatNothingCanStandUnder) {
  GraphCase made{"dmmdmm", "standard", Phase::prefill, "tp=2", true, 1, Scope::forward};
  // Attention's sum is read by the feed-forward, the feed-forward's by the next attention.
  for (const char* name : {"mb0.l2.fwd.reduce_attn", "mb0.l2.fwd.reduce_routed", "mb0.l3.fwd.reduce_dense"})
    EXPECT_EQ(hint_for(made.graph(), 1, name), Exposure::nothing_beside_it) << name;
  made.connectivity = "farskip";
  EXPECT_EQ(hint_for(made.graph(), 1, "mb0.l2.fwd.reduce_attn"), Exposure::none);
  EXPECT_EQ(hint_for(made.graph(), 1, "mb0.l2.fwd.reduce_routed"), Exposure::none);
  EXPECT_EQ(hint_for(made.graph(), 1, "mb0.l3.fwd.reduce_attn"), Exposure::nothing_beside_it) << "attention and dense";
  // Behind the last layer everything is read together: one sum.
  EXPECT_EQ(hint_for(made.graph(), 1, "mb0.l5.fwd.reduce_attn"), Exposure::first_or_last_layer);
  made.num_microbatches = 2;
  EXPECT_EQ(hint_for(made.graph(), 1, "mb0.l3.fwd.reduce_attn"), Exposure::none);
}

}  // namespace
}  // namespace farskip
