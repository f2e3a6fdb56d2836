// What holds for every graph: forward, its transposition, and the end of a step.

#include "layer/stage_graph.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using testing::GraphCase;
using ::testing::HasSubstr;

std::vector<std::string> read_names(const StageGraph& graph, const std::string& node) {
  std::vector<std::string> names;
  for (ValueId v : graph.node(graph.find(node)).reads) names.push_back(graph.value(v).name);
  return names;
}

TEST(StageGraph, ValuesAreWrittenOnceAndReadAfterwards) {
  for (const GraphCase& made : testing::many_cases()) {
    const StageGraph graph = made.graph();
    std::vector<int> written(graph.num_values(), 0);
    std::set<std::string> node_names, value_names;
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const Node& node = graph.node(id);
      EXPECT_TRUE(node_names.insert(graph.name(id)).second) << made.describe() << ": " << graph.name(id);
      for (ValueId v : node.reads) {
        EXPECT_EQ(written[v], 1) << made.describe() << ": " << graph.value(v).name << " read by " << graph.name(id);
        const auto& readers = graph.value(v).readers;
        EXPECT_EQ(std::count(readers.begin(), readers.end(), id), 1) << graph.value(v).name;
      }
      for (ValueId v : node.writes) {
        ++written[v];
        EXPECT_EQ(graph.value(v).producer, id);
      }
      EXPECT_EQ(node.is_collective(), node.group != Group::none) << graph.name(id);
      for (NodeId p : graph.predecessors(id)) EXPECT_LT(p, id);
    }
    for (ValueId v = 0; v < graph.num_values(); ++v) {
      EXPECT_EQ(written[v], 1) << made.describe() << ": " << graph.value(v).name;
      EXPECT_TRUE(value_names.insert(graph.value(v).name).second) << made.describe() << ": " << graph.value(v).name;
    }
  }
}

TEST(StageGraph, NamesFindTheirNodes) {
  const StageGraph graph = GraphCase{}.graph();
  for (NodeId id = 0; id < graph.num_nodes(); ++id) EXPECT_EQ(graph.find(graph.name(id)), id);
  EXPECT_EQ(graph.name(graph.find(0, 1, Pass::forward, Stage::dispatch)), "mb0.l1.fwd.dispatch");
  EXPECT_EQ(graph.find(0, 0, Pass::forward, Stage::dispatch), no_node);  // a dense layer
  EXPECT_THAT(error_of([&] { graph.find("mb0.l9.fwd.qkv"); }), HasSubstr("no node 'mb0.l9.fwd.qkv'"));
}

TEST(StageGraph, BackwardIsTheTranspositionOfForward) {
  for (const GraphCase& made : testing::many_cases()) {
    if (made.phase != Phase::train) continue;
    const StageGraph graph = made.graph();
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const Node& node = graph.node(id);
      if (node.pass != Pass::backward) continue;
      const Node& forward = graph.node(node.forward);
      EXPECT_EQ(node.stage, forward.stage);
      EXPECT_EQ(node.group, forward.group);
      ASSERT_EQ(node.input_grads.size(), forward.reads.size()) << graph.name(id);
      ASSERT_EQ(node.output_grads.size(), forward.writes.size()) << graph.name(id);
      for (size_t i = 0; i < forward.reads.size(); ++i) {
        EXPECT_EQ(node.input_grads[i] != no_value, graph.value(forward.reads[i]).differentiable) << graph.name(id);
      }
      for (size_t i = 0; i < forward.writes.size(); ++i) {
        // One contribution of each reader that has a gradient to give, the last declared reader first.
        std::vector<NodeId> contributors, readers;
        for (ValueId v : node.output_grads[i]) contributors.push_back(graph.node(graph.value(v).producer).forward);
        for (NodeId reader : graph.value(forward.writes[i]).readers) {
          const bool differentiated = graph.node(reader).pass == Pass::forward &&
                                      graph.find(made.num_microbatches - 1, graph.node(reader).layer, Pass::backward,
                                                 graph.node(reader).stage) != no_node;
          if (differentiated && graph.value(forward.writes[i]).differentiable) readers.push_back(reader);
        }
        std::sort(readers.rbegin(), readers.rend());
        EXPECT_EQ(contributors, readers) << made.describe() << ": " << graph.value(forward.writes[i]).name;
      }
    }
  }
}

TEST(StageGraph, EveryStageWithWeightsGetsAGradient) {
  for (const GraphCase& made : testing::many_cases()) {
    if (made.phase != Phase::train) continue;
    const StageGraph graph = made.graph();
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const Node& node = graph.node(id);
      if (node.pass != Pass::forward) continue;
      const bool weights = row(node.stage).has_weights;
      EXPECT_EQ(graph.find(node.microbatch, node.layer, Pass::wgrad, node.stage) != no_node, weights)
          << made.describe() << ": " << graph.name(id);
    }
  }
}

TEST(StageGraph, FanInOfTheFeedForwardInputIsReversed) {
  const StageGraph graph = GraphCase{}.graph();
  // u is read by route, permute and shared, in this order of declaration.
  const Node& view = graph.node(graph.find("mb0.l2.bwd.view_ff"));
  std::vector<std::string> names;
  for (ValueId v : view.output_grads.back()) names.push_back(graph.value(v).name);
  EXPECT_THAT(names, ElementsAre("d(mb0.l2.u)/l2.shared", "d(mb0.l2.u)/l2.permute", "d(mb0.l2.u)/l2.route"));
}

TEST(StageGraph, DispatchAndCombineSwapInTheBackwardPass) {
  const StageGraph graph = GraphCase{}.graph();
  EXPECT_THAT(read_names(graph, "mb0.l2.bwd.combine"), ElementsAre("d(mb0.l2.returned)/l2.unpermute"));
  EXPECT_THAT(read_names(graph, "mb0.l2.bwd.experts"), ElementsAre("d(mb0.l2.done)/l2.combine"));
  EXPECT_THAT(read_names(graph, "mb0.l2.bwd.dispatch"), ElementsAre("d(mb0.l2.received)/l2.experts"));
  EXPECT_THAT(read_names(graph, "mb0.l2.bwd.permute"), ElementsAre("d(mb0.l2.rows)/l2.dispatch"));
  EXPECT_EQ(graph.node(graph.find("mb0.l2.bwd.combine")).group, Group::expert);
  EXPECT_EQ(graph.find(0, 2, Pass::backward, Stage::counts), no_node);  // numbers of rows have no gradient
}

TEST(StageGraph, WeightGradientsAreChainedInMicrobatchOrder) {
  GraphCase made;
  made.num_microbatches = 3;
  const StageGraph graph = made.graph();
  EXPECT_THAT(read_names(graph, "mb0.l2.wgrad.experts"), ElementsAre("left_over(mb0.l2.fwd.experts)"));
  for (int m : {1, 2}) {
    EXPECT_THAT(read_names(graph, fmt::format("mb{}.l2.wgrad.experts", m)),
                ElementsAre(fmt::format("left_over(mb{}.l2.fwd.experts)", m),
                            fmt::format("accumulated(mb{}.l2.fwd.experts)", m - 1)));
  }
  // Nobody waits for a weight gradient but the next one, its reduction and the optimizer.
  for (const Node& node : graph.nodes()) {
    for (ValueId v : node.reads) {
      const bool of_weights = graph.node(graph.value(v).producer).pass == Pass::wgrad;
      EXPECT_TRUE(!of_weights || node.pass == Pass::wgrad || node.pass == Pass::step);
    }
  }
}

TEST(StageGraph, ExpertLoadGrowsAndIsAwaitedByTheGatesBackwardOnly) {
  const GraphCase made{"dmm"};
  const Connectivity farskip = Connectivity::farskip(3);
  GraphOptions options{Phase::train, Layout::parse("ep=2,dp=2"), 3, Scope::step};
  options.expert_load = true;
  const StageGraph graph = build_graph(made.model(), farskip, options);
  for (int layer : {1, 2}) {
    EXPECT_THAT(read_names(graph, fmt::format("mb0.l{}.fwd.expert_load", layer)),
                ElementsAre(fmt::format("mb0.l{}.ids", layer)));
    EXPECT_THAT(read_names(graph, fmt::format("mb2.l{}.fwd.expert_load", layer)),
                ElementsAre(fmt::format("mb2.l{}.ids", layer), fmt::format("mb1.l{}.load", layer)));
    const NodeId id = graph.find(1, layer, Pass::forward, Stage::expert_load);
    EXPECT_EQ(graph.node(id).group, Group::world);
    EXPECT_EQ(graph.find(1, layer, Pass::backward, Stage::expert_load), no_node);
    EXPECT_THAT(graph.value(graph.node(id).writes[0]).readers,
                ::testing::UnorderedElementsAre(graph.find(1, layer, Pass::backward, Stage::route),
                                                graph.find(2, layer, Pass::forward, Stage::expert_load)));
  }
  EXPECT_EQ(graph.find(0, 0, Pass::forward, Stage::expert_load), no_node) << "a dense layer";
  options.scope = Scope::forward;
  const StageGraph forward = build_graph(made.model(), farskip, options);
  EXPECT_EQ(forward.find(0, 1, Pass::forward, Stage::expert_load), no_node) << "without a backward nobody reads it";
}

TEST(StageGraph, TiedEmbeddingsShareOneGradient) {
  ModelConfig model = testing::tiny_model("mm");
  model.tie_word_embeddings = true;
  const StageGraph graph =
      build_graph(model, Connectivity::farskip(2), {Phase::train, Layout::parse("ep=2"), 2, Scope::step});
  // Uses of the weight in reverse declaration order: head, then embedding; microbatch by microbatch.
  EXPECT_THAT(read_names(graph, "mb0.wgrad.embed"),
              ElementsAre("left_over(mb0.fwd.embed)", "accumulated(mb0.fwd.head)"));
  EXPECT_THAT(read_names(graph, "mb1.wgrad.head"),
              ElementsAre("left_over(mb1.fwd.head)", "accumulated(mb0.fwd.embed)"));
  EXPECT_THAT(read_names(graph, "head.step.grad_reduce"), ElementsAre("accumulated(mb1.fwd.embed)"));
  EXPECT_THAT(error_of([&] { graph.find("embed.step.grad_reduce"); }), HasSubstr("no node"));
}

TEST(StageGraph, GradientsAreReducedOnlyOverGroupsOfSeveralRanks) {
  auto reductions = [](const char* layout) {
    GraphCase made{"dm"};
    made.layout = layout;
    const StageGraph graph = made.graph();
    std::map<std::string, Group> found;
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      if (graph.node(id).pass == Pass::step && graph.node(id).is_collective()) {
        found[graph.name(id)] = graph.node(id).group;
      }
    }
    return found;
  };
  using Found = std::map<std::string, Group>;
  const Found statistics = {{"step.stats", Group::world}};
  EXPECT_EQ(reductions("ep=1"), statistics);
  const Found replicated = {{"step.stats", Group::world},
                            {"embed.step.grad_reduce", Group::world},
                            {"l0.step.grad_reduce", Group::world},
                            {"l1.step.grad_reduce", Group::world},
                            {"head.step.grad_reduce", Group::world}};
  EXPECT_EQ(reductions("ep=4"), replicated);
  Found all = replicated;
  all["l1.step.grad_reduce_experts"] = Group::expert_data;
  EXPECT_EQ(reductions("ep=4,dp=2"), all);
  EXPECT_EQ(reductions("ep=1,dp=2"), all);
}

TEST(StageGraph, TheOptimizerNeedsEveryGradientAndTheStatistics) {
  for (const char* layout : {"ep=1", "ep=2", "ep=2,dp=2"}) {
    GraphCase made;
    made.layout = layout;
    const StageGraph graph = made.graph();
    std::set<NodeId> needed = {graph.find("step.optimizer")};
    for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
      if (!needed.count(id)) continue;
      for (NodeId p : graph.predecessors(id)) needed.insert(p);
    }
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const Pass pass = graph.node(id).pass;
      if (pass != Pass::wgrad && pass != Pass::step) continue;
      EXPECT_TRUE(needed.count(id)) << layout << " " << graph.name(id);
    }
    const auto direct = graph.predecessors(graph.find("step.optimizer"));
    EXPECT_TRUE(std::count(direct.begin(), direct.end(), graph.find("step.stats")));
  }
}

TEST(StageGraph, DataParallelInferenceGathersAndScatters) {
  const StageGraph graph = GraphCase{"dm", "farskip", Phase::decode, "ep=4"}.graph();
  std::vector<std::string> collectives;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (graph.node(id).is_collective()) collectives.push_back(graph.name(id));
  }
  EXPECT_THAT(collectives, ElementsAre("mb0.l1.fwd.gather", "mb0.l1.fwd.reduce_scatter"));
  EXPECT_THAT(read_names(graph, "mb0.l1.fwd.gather"), ElementsAre("mb0.l1.u", "mb0.l1.p", "mb0.l1.ids"));
  EXPECT_THAT(read_names(graph, "mb0.l1.fwd.reduce_scatter"), ElementsAre("mb0.l1.all_routed"));
  EXPECT_EQ(graph.name(graph.num_nodes() - 1), "mb0.fwd.sample");
}

TEST(StageGraph, InferenceOfSeveralFormsHoldsNoHostSync) {
  for (const char* layout : {"tp=2", "ep=4"}) {
    const StageGraph graph = GraphCase{"dmm", "farskip", Phase::prefill, layout}.graph();
    for (const Node& node : graph.nodes()) {
      EXPECT_FALSE(row(node.stage).host_sync) << layout;
    }
  }
}

TEST(StageGraph, OptionsOfTheModelChangeWhatStagesRead) {
  ModelConfig model = testing::tiny_model("m");
  model.attention.gated = true;
  model.router.weigh_input = true;
  const StageGraph graph = build_graph(model, Connectivity::farskip(1), {Phase::train, Layout::parse("ep=2")});
  EXPECT_THAT(read_names(graph, "mb0.l0.fwd.attn_out"), ElementsAre("mb0.l0.core", "mb0.l0.gate"));
  EXPECT_THAT(read_names(graph, "mb0.l0.fwd.permute"), ElementsAre("mb0.l0.u", "mb0.l0.ids", "mb0.l0.p"));
  EXPECT_THAT(read_names(graph, "mb0.l0.fwd.unpermute"), ElementsAre("mb0.l0.returned", "mb0.l0.ids"));
}

TEST(StageGraph, RefusesWhatDoesNotFit) {
  const ModelConfig model = testing::tiny_model("mm");
  auto error = [&](const Connectivity& connectivity, GraphOptions options) {
    return error_of([&] { build_graph(model, connectivity, options); });
  };
  EXPECT_THAT(error(Connectivity::farskip(3), {}), HasSubstr("describes 3 layers, the model has 2"));
  EXPECT_THAT(error(Connectivity::farskip(2), {Phase::train, {}, 0}), HasSubstr("0 microbatches"));
  EXPECT_THAT(error(Connectivity::farskip(2), {Phase::train, Layout::parse("ep=3")}),
              HasSubstr("8 experts cannot be divided over 3 ranks"));
}

TEST(Stages, EachRowStandsAtItsEnumAndNamesRoundTrip) {
  ASSERT_EQ(stage_table().size(), static_cast<size_t>(num_stages));
  for (int i = 0; i < num_stages; ++i) {
    const auto stage = static_cast<Stage>(i);
    EXPECT_EQ(row(stage).stage, stage);
    EXPECT_EQ(parse_stage(to_string(stage)), stage);
  }
  for (Pass pass : {Pass::forward, Pass::backward, Pass::wgrad, Pass::recompute, Pass::step, Pass::teacher})
    EXPECT_EQ(parse_pass(to_string(pass)), pass);
  EXPECT_THAT(error_of([] { parse_stage("dispach"); }), HasSubstr("'dispach' is not a stage"));
  EXPECT_THAT(error_of([] { parse_pass("backward"); }), HasSubstr("expected fwd, bwd, wgrad, rec, step or teach"));
}

}  // namespace
}  // namespace farskip
