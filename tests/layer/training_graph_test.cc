// What a training step may have besides its passes: gathers of weights that are shared out, and recomputation.

#include "layer/training_graph.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;

StageGraph graph_of(const ModelConfig& model, const std::string& layout, bool sharded, Recompute recompute = {},
                    int num_microbatches = 2) {
  GraphOptions options{Phase::train, Layout::parse(layout), num_microbatches, Scope::step, sharded, recompute};
  return build_graph(model, Connectivity::farskip(model.num_layers()), options);
}

std::vector<std::string> gathers(const StageGraph& graph) {
  std::vector<std::string> names;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (is_gather(graph.node(id).stage)) names.push_back(graph.name(id));
  }
  return names;
}

bool depends(const StageGraph& graph, NodeId on, NodeId id) {
  const auto needed = graph.predecessors(id);
  return std::binary_search(needed.begin(), needed.end(), on);
}

TEST(SharedOutWeights, AreGatheredBeforeTheirStages) {
  const ModelConfig model = testing::tiny_model("dm");
  EXPECT_THAT(gathers(graph_of(model, "ep=2", false)), ElementsAre());
  EXPECT_THAT(gathers(graph_of(model, "ep=1", true)), ElementsAre()) << "one rank keeps everything";
  EXPECT_THAT(gathers(graph_of(model, "ep=2", true)), ElementsAre("embed.step.param_gather", "l0.step.param_gather",
                                                                  "l1.step.param_gather", "head.step.param_gather"))
      << "nobody else holds a rank's experts";
  const StageGraph graph = graph_of(model, "ep=2,dp=2", true);
  EXPECT_THAT(gathers(graph), ElementsAre("embed.step.param_gather", "l0.step.param_gather", "l1.step.param_gather",
                                          "l1.step.param_gather_experts", "head.step.param_gather"));
  int checked = 0;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (node.pass != Pass::forward || !row(node.stage).has_weights) continue;
    const Stage gather = node.stage == Stage::experts ? Stage::param_gather_experts : Stage::param_gather;
    EXPECT_TRUE(depends(graph, graph.find(-1, node.layer, Pass::step, gather), id)) << graph.name(id);
    ++checked;
  }
  EXPECT_EQ(checked, 2 * (1 + 4 + 6 + 1)) << "of both microbatches";
  const StageGraph whole = graph_of(model, "ep=2,dp=2", false);
  EXPECT_FALSE(graph.is_all_reduce(graph.find("l1.step.grad_reduce"))) << "each rank gets its part";
  EXPECT_TRUE(whole.is_all_reduce(whole.find("l1.step.grad_reduce")));
}

TEST(SharedOutWeights, TiedEmbeddingsComeWithTheHead) {
  ModelConfig model = testing::tiny_model("m");
  model.tie_word_embeddings = true;
  const StageGraph graph = graph_of(model, "ep=2", true);
  EXPECT_THAT(gathers(graph), ElementsAre("head.step.param_gather", "l0.step.param_gather"));
  EXPECT_TRUE(depends(graph, graph.find("head.step.param_gather"), graph.find("mb0.fwd.embed")));
  EXPECT_TRUE(depends(graph, graph.find("head.step.param_gather"), graph.find("mb1.fwd.head")));
}

/// Forward values that something of the backward pass still reads, or that a forward stage keeps.
std::set<std::string> kept(const StageGraph& graph, int layer) {
  std::set<std::string> names;
  for (const Value& value : graph.values()) {
    const Node& producer = graph.node(value.producer);
    if (producer.pass != Pass::forward || producer.layer != layer || producer.microbatch != 0) continue;
    for (NodeId reader : value.readers) {
      const Node& node = graph.node(reader);
      const bool saves = node.pass == Pass::forward && node.layer == layer && node.recompute == no_node &&
                         !node.is_collective() && node.stage != Stage::view_attn;
      if (saves || node.pass == Pass::recompute) names.insert(value.name);
    }
  }
  return names;
}

TEST(Recomputation, AWholeLayerKeepsItsSumsAndRoutes) {
  const ModelConfig model = testing::tiny_model("mmm");
  EXPECT_GT(kept(graph_of(model, "ep=2", false), 1).size(), 10u);
  const StageGraph graph = graph_of(model, "ep=2", false, {.num_layers = 3});
  for (const std::string& name : kept(graph, 1)) {
    const bool sum = name.find(".x") != name.npos || name.find(".h") != name.npos || name.find(".y") != name.npos;
    EXPECT_TRUE(sum || name.find("plan") != name.npos || name.find("counts") != name.npos) << name;
  }
  EXPECT_LE(kept(graph, 1).size(), 4u);
}

TEST(Recomputation, BeginsWhenTheLayerAboveIsReached) {
  const ModelConfig model = testing::tiny_model("mmm");
  const StageGraph graph = graph_of(model, "ep=2", true, {.num_layers = 2});
  std::set<Stage> again;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    EXPECT_TRUE(node.pass != Pass::recompute || node.layer < 2);
    if (node.pass != Pass::recompute || node.layer != 1 || node.microbatch != 1) continue;
    again.insert(node.stage);
    EXPECT_EQ(graph.node(node.forward).recompute, id);
    bool waits = false;
    for (NodeId p : graph.predecessors(id)) {
      const Node& before = graph.node(p);
      waits |= before.pass == Pass::backward && before.layer == 2 && before.microbatch == 1;
    }
    EXPECT_TRUE(waits) << graph.name(id);
  }
  using enum Stage;
  EXPECT_EQ(again, (std::set<Stage>{qkv, attn_core, attn_out, view_ff, route, permute, dispatch, shared, experts,
                                    combine, unpermute}));
  // What the first pass saved nothing for, the second does.
  EXPECT_TRUE(depends(graph, graph.find("mb0.l1.rec.experts"), graph.find("mb0.l1.bwd.experts")));
  EXPECT_TRUE(depends(graph, graph.find("mb0.l1.rec.experts"), graph.find("mb0.l1.wgrad.experts")));
  EXPECT_TRUE(depends(graph, graph.find("mb0.l1.rec.dispatch"), graph.find("mb0.l1.rec.experts")));
}

TEST(TrainingGraph, FollowsTheRecipe) {
  const ModelConfig model = testing::tiny_model("mmm");
  TrainConfig config;
  config.layout = "ep=2,dp=1";
  config.micro_batch_size = 1;
  config.global_batch_size = 4;
  config.expert_model_parallel_size = 2;
  config.data_parallel = 1;
  config.use_distributed_optimizer = true;
  config.recompute_granularity = RecomputeGranularity::full;
  GraphOptions options = training_graph(config, model);
  EXPECT_EQ(options.num_microbatches, 2);
  EXPECT_TRUE(options.shard_optimizer);
  EXPECT_EQ(options.recompute, (Recompute{.num_layers = 3})) << "all of them";
  config.recompute_num_layers = 2;
  EXPECT_EQ(training_graph(config, model).recompute.num_layers, 2);
  config.recompute_granularity = RecomputeGranularity::selective;
  EXPECT_EQ(training_graph(config, model).recompute, (Recompute{.core_attn = true}));
  config.recompute_modules = "moe_act core_attn layernorm";
  EXPECT_EQ(training_graph(config, model).recompute,
            (Recompute{.core_attn = true, .layernorm = true, .moe_act = true}));
  config.recompute_modules = "core_attn moe_atc";
  EXPECT_THAT(error_of([&] { training_graph(config, model); }), HasSubstr("'moe_atc' is unknown"));
}

}  // namespace
}  // namespace farskip
