// A teacher's pass in the graph of a distillation: beside the student's, under a connectivity of its own, and with no
// trace in the backward pass but the loss's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "layer/stage_graph.h"
#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

GraphOptions distilling(bool terms, int num_microbatches = 2) {
  GraphOptions options{Phase::train, Layout::parse("ep=2,dp=2"), num_microbatches, Scope::step};
  options.match_streams = options.match_routes = terms;
  return options;
}

StageGraph graph_of(const ModelConfig& model, GraphOptions options, const char* teacher = "standard") {
  options.teacher = Connectivity::parse(teacher, model.num_layers());
  return build_graph(model, Connectivity::farskip(model.num_layers()), options);
}

/// Everything that has to be over before a node.
std::set<NodeId> before(const StageGraph& graph, NodeId id) {
  std::set<NodeId> found;
  std::vector<NodeId> open = {id};
  while (!open.empty()) {
    const NodeId next = open.back();
    open.pop_back();
    for (NodeId p : graph.predecessors(next)) {
      if (found.insert(p).second) open.push_back(p);
    }
  }
  return found;
}

TEST(TeacherGraph, HasTheNodesOfBothModels) {
  const ModelConfig model = testing::tiny_model("dmm");
  const StageGraph both = graph_of(model, distilling(false));
  const StageGraph student = build_graph(model, Connectivity::farskip(3), distilling(false));
  GraphOptions forward = distilling(false);
  forward.scope = Scope::forward;
  const StageGraph teacher = build_graph(model, Connectivity::standard(3), forward);
  EXPECT_EQ(both.num_nodes(), student.num_nodes() + teacher.num_nodes() - 2) << "a teacher has no loss";
  EXPECT_EQ(both.name(both.find(1, 2, Pass::teacher, Stage::dispatch)), "mb1.l2.teach.dispatch");
  for (const Node& node : both.nodes()) {
    if (node.pass != Pass::teacher) continue;
    for (ValueId v : node.writes) EXPECT_FALSE(both.value(v).differentiable) << both.value(v).name;
  }
  // Attention of layer 2 waits for the routed output before it in the teacher, and not in the student.
  const auto needs_combine = [&](Pass pass) {
    return before(both, both.find(0, 2, pass, Stage::qkv)).count(both.find(0, 1, pass, Stage::combine)) > 0;
  };
  EXPECT_TRUE(needs_combine(Pass::teacher));
  EXPECT_FALSE(needs_combine(Pass::forward));
}

TEST(TeacherGraph, NothingButTheLossLooksAtTheTeacher) {
  const ModelConfig model = testing::tiny_model("dmm");
  const StageGraph graph = graph_of(model, distilling(false));
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (node.pass == Pass::teacher) continue;
    for (NodeId p : graph.predecessors(id)) {
      if (graph.node(p).pass != Pass::teacher) continue;
      EXPECT_EQ(graph.name(id), fmt::format("mb{}.fwd.loss", node.microbatch));
    }
  }
}

TEST(TeacherGraph, TermsCompareEachLayerWithItsOwn) {
  const ModelConfig model = testing::tiny_model("dmm");
  const StageGraph graph = graph_of(model, distilling(true, 1));
  for (int layer = 1; layer <= 3; ++layer) {
    const NodeId match = graph.find(0, layer, Pass::forward, Stage::match);
    ASSERT_NE(match, no_node);
    EXPECT_NE(graph.find(0, layer, Pass::backward, Stage::match), no_node) << "the student learns from it";
    const auto of_teacher = graph.value(graph.node(match).reads[1]);
    EXPECT_EQ(graph.node(of_teacher.producer).pass, Pass::teacher);
    EXPECT_EQ(graph.value(graph.node(match).reads[0]).name, fmt::format("mb0.x{}", layer)) << "the whole stream";
    EXPECT_EQ(of_teacher.name, fmt::format("mb0.teacher.x{}", layer));
  }
  EXPECT_TRUE(before(graph, graph.find(0, 2, Pass::forward, Stage::route))
                  .count(graph.find(0, 2, Pass::teacher, Stage::route)));
}

}  // namespace
}  // namespace farskip
