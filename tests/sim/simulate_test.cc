// The simulator against cases small enough to do by hand, and against closed forms.

#include "sim/simulate.h"

#include <gmock/gmock.h>

#include <functional>
#include <map>

#include "schedule/hand_orders.h"
#include "schedule/validate.h"
#include "tests/layer/tiny_model.h"
#include "trace/overlap.h"

namespace farskip {
namespace {

using testing::GraphCase;

/// embed (10 us) feeds a collective and `shared` (4 us); `head` (3 us) needs both.
struct Diamond {
  StageGraph graph;
  NodeId first, collective, beside, last;

  explicit Diamond(Stage stage = Stage::dispatch) {
    auto add = [&](Stage s, Group group, std::vector<ValueId> reads) {
      Node node;
      node.microbatch = 0;
      node.stage = s;
      node.group = group;
      node.reads = std::move(reads);
      node.writes = {graph.add_value(std::string(to_string(s)), true)};
      return graph.add_node(node);
    };
    first = add(Stage::embed, Group::none, {});
    collective = add(stage, Group::expert, {0});
    beside = add(Stage::shared, Group::none, {0});
    last = add(Stage::head, Group::none, {1, 2});
  }
  CostTable costs(double comm) const { return {{10, comm, 4, 3}}; }
  Schedule overlapped() const { return overlapped_schedule(graph, {first, collective, beside, last}, "overlapped"); }
};

TEST(Simulate, ExposesWhatTheWindowDoesNotCover) {
  const Diamond d;
  for (double comm : {0.0, 2.0, 4.0, 7.0, 100.0}) {
    const Simulation result = simulate(d.graph, d.overlapped(), d.costs(comm));
    EXPECT_DOUBLE_EQ(result.exposed_us, std::max(0.0, comm - 4)) << comm;
    EXPECT_DOUBLE_EQ(result.step_us, 10 + std::max(comm, 4.0) + 3) << comm;
    EXPECT_DOUBLE_EQ(result.compute_us, 17) << comm;
    const Simulation blocking = simulate(d.graph, reference_schedule(d.graph), d.costs(comm));
    EXPECT_DOUBLE_EQ(blocking.exposed_us, comm);
    EXPECT_DOUBLE_EQ(blocking.step_us, 17 + comm);
  }
}

TEST(Simulate, SpansAreWhatHappened) {
  const Diamond d;
  const auto spans = simulate(d.graph, d.overlapped(), d.costs(7)).timeline.spans;
  ASSERT_EQ(spans.size(), 5u);
  auto expect = [&](size_t i, SpanKind kind, const char* lane, const char* name, double begin, double end) {
    EXPECT_EQ(spans[i].kind, kind) << i;
    EXPECT_EQ(spans[i].lane, lane) << i;
    EXPECT_EQ(spans[i].name, name) << i;
    EXPECT_DOUBLE_EQ(spans[i].begin_us, begin) << i;
    EXPECT_DOUBLE_EQ(spans[i].end_us, end) << i;
  };
  expect(0, SpanKind::compute, "compute", "mb0.fwd.embed", 0, 10);
  expect(1, SpanKind::collective, "expert", "mb0.fwd.dispatch", 10, 17);
  expect(2, SpanKind::compute, "compute", "mb0.fwd.shared", 10, 14);
  expect(3, SpanKind::wait, "compute", "mb0.fwd.dispatch", 14, 17);
  expect(4, SpanKind::compute, "compute", "mb0.fwd.head", 17, 20);
}

TEST(Simulate, ACollectiveStartsWithItsLastRank) {
  const Diamond d;
  // Rank 0 launches at 10 and is done beside at 14; rank 1 launches at 16, is done at 20. The collective runs 16-23.
  const std::vector<CostTable> ranks = {{{10, 7, 4, 3}}, {{16, 5, 4, 3}}};
  const Simulation result = simulate(d.graph, d.overlapped(), ranks);
  EXPECT_DOUBLE_EQ(result.step_us, 26);
  EXPECT_DOUBLE_EQ(result.skew_us, (2 + 0) / 2.0);
  EXPECT_DOUBLE_EQ(result.exposed_us, (7 + 3) / 2.0);
  EXPECT_DOUBLE_EQ(result.compute_us, (17 + 23) / 2.0);
  EXPECT_DOUBLE_EQ(simulated_step_us(d.graph, d.overlapped(), ranks), 26);
  for (const auto& timing : measure_overlap(result.timeline)) {
    EXPECT_DOUBLE_EQ(timing.launch_us, 16);
    EXPECT_DOUBLE_EQ(timing.duration_us, 7);
    EXPECT_DOUBLE_EQ(timing.exposed_us, timing.rank == 0 ? 7 : 3);
  }
}

TEST(Simulate, EqualRanksAreAsOne) {
  const StageGraph graph = GraphCase{"mmm"}.graph();
  CostTable costs;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) costs.us.push_back(1 + id % 7);
  const Schedule paper = paper_schedule(graph);
  const Simulation one = simulate(graph, paper, costs), three = simulate(graph, paper, {costs, costs, costs});
  EXPECT_DOUBLE_EQ(one.step_us, three.step_us);
  EXPECT_NEAR(one.exposed_us, three.exposed_us, 1e-9);
  EXPECT_EQ(three.skew_us, 0);
  EXPECT_EQ(one.timeline.spans.size() * 3, three.timeline.spans.size());
}

TEST(Simulate, JitterSlowsComputationAlone) {
  const StageGraph graph = GraphCase{"mmmmmm"}.graph();
  const CostTable costs{std::vector<double>(graph.num_nodes(), 10)};
  const CostTable uneven = costs.with_jitter(graph, 0.2, 1, 0);
  double sum = 0;
  int num_compute = 0;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (graph.node(id).is_collective()) {
      EXPECT_EQ(uneven.us[id], 10);
      continue;
    }
    EXPECT_GE(uneven.us[id], 10);
    sum += uneven.us[id];
    ++num_compute;
  }
  EXPECT_NEAR(sum / num_compute, 12, 0.6);
  EXPECT_EQ(uneven.us, costs.with_jitter(graph, 0.2, 1, 0).us);
  EXPECT_NE(uneven.us, costs.with_jitter(graph, 0.2, 1, 1).us);
}

TEST(Simulate, TheHostLaunchesAheadOnADevice) {
  const Diamond d;
  CostTable costs = d.costs(7);
  costs.launch_us = 5;
  // Launches end at 5, 10, 15, 20; kernels run 5-15, (15-22), 15-19, 22-25.
  const Simulation result = simulate(d.graph, d.overlapped(), costs);
  EXPECT_DOUBLE_EQ(result.step_us, 25);
  EXPECT_DOUBLE_EQ(result.exposed_us, 3);
}

TEST(Simulate, WaitingForTheHostIsNotExposedCommunication) {
  const Diamond d;
  CostTable costs = d.costs(7);
  costs.launch_us = 20;
  // embed runs 20-30, the collective is launched at 40 and done at 47.
  const Simulation result = simulate(d.graph, reference_schedule(d.graph), costs);
  EXPECT_DOUBLE_EQ(result.exposed_us, 7);
  for (const auto& timing : measure_overlap(result.timeline)) EXPECT_DOUBLE_EQ(timing.exposed_us, 7);
}

TEST(Simulate, TheHostIsTheComputeLaneOnACpu) {
  const Diamond d;
  CostTable costs = d.costs(7);
  costs.launch_us = 5;
  costs.host_computes = true;
  // 5 + 10, then 5 to launch: the collective runs 20-27; 5 + 4 end at 29, 5 + 3 at 37.
  const Simulation result = simulate(d.graph, d.overlapped(), costs);
  EXPECT_DOUBLE_EQ(result.step_us, 37);
  EXPECT_DOUBLE_EQ(result.exposed_us, 0);
}

TEST(Simulate, CountsHoldTheHost) {
  const Diamond free_running, synchronous(Stage::counts);
  auto step = [](const Diamond& d) {
    CostTable costs = d.costs(7);
    costs.launch_us = 5;
    return simulate(d.graph, d.overlapped(), costs).step_us;
  };
  EXPECT_DOUBLE_EQ(step(free_running), 25);
  EXPECT_DOUBLE_EQ(step(synchronous), 22 + 5 + 3);  // head is launched only when the counts are there
}

/// Two collectives of different communicators, launched together.
TEST(Simulate, CommunicatorsShareALinkOnlyWhereToldSo) {
  StageGraph graph;
  auto add = [&](Stage stage, Group group, std::vector<ValueId> reads) {
    Node node;
    node.microbatch = 0;
    node.stage = stage;
    node.group = group;
    node.reads = std::move(reads);
    node.writes = {graph.add_value(std::string(to_string(stage)), true)};
    return graph.add_node(node);
  };
  add(Stage::embed, Group::none, {});
  add(Stage::dispatch, Group::expert, {0});
  add(Stage::stats, Group::world, {0});
  add(Stage::head, Group::none, {1, 2});
  const Schedule schedule = overlapped_schedule(graph, {0, 1, 2, 3}, "both");
  CostTable costs{{10, 20, 30, 3}};
  EXPECT_DOUBLE_EQ(simulate(graph, schedule, costs).step_us, 10 + 30 + 3);
  EXPECT_DOUBLE_EQ(lane_bound_us(graph, costs), 30);
  costs.one_link = true;
  EXPECT_DOUBLE_EQ(simulate(graph, schedule, costs).step_us, 10 + 20 + 30 + 3);
  EXPECT_DOUBLE_EQ(lane_bound_us(graph, costs), 50);
}

TEST(Simulate, CollectivesOfOneCommunicatorQueue) {
  StageGraph graph;
  for (int layer = 0; layer < 2; ++layer) {
    Node node;
    node.microbatch = 0;
    node.layer = layer - 2;
    node.stage = layer == 0 ? Stage::dispatch : Stage::combine;
    node.group = Group::expert;
    node.writes = {graph.add_value(std::to_string(layer), true)};
    graph.add_node(node);
  }
  EXPECT_DOUBLE_EQ(simulate(graph, overlapped_schedule(graph, {0, 1}, "queue"), {{5, 6}}).step_us, 11);
}

/// A cost for each (pass, stage), the same in every layer.
CostTable uniform_costs(const StageGraph& graph, const std::map<std::string, double>& by_stage) {
  CostTable costs;
  for (const Node& node : graph.nodes()) {
    const auto found = by_stage.find(fmt::format("{}.{}", to_string(node.pass), to_string(node.stage)));
    costs.us.push_back(found == by_stage.end() ? 1.0 : found->second);
  }
  return costs;
}

TEST(Simulate, AgreesWithTheClosedFormsOfAFarskipLayer) {
  const StageGraph graph = GraphCase{"mmmmmm"}.graph();
  const Schedule paper = paper_schedule(graph);
  for (double comm : {3.0, 20.0, 60.0, 200.0}) {
    std::map<std::string, double> c = {
        {"fwd.qkv", 7},         {"fwd.attn_core", 11}, {"fwd.attn_out", 5},   {"fwd.experts", 30},
        {"fwd.shared", 9},      {"bwd.qkv", 8},        {"wgrad.qkv", 6},      {"bwd.attn_core", 25},
        {"bwd.attn_out", 5},    {"wgrad.attn_out", 4}, {"bwd.shared", 10},    {"wgrad.shared", 3},
        {"fwd.dispatch", comm}, {"fwd.combine", comm}, {"bwd.combine", comm}, {"bwd.dispatch", comm}};
    const auto simulated = simulate(graph, paper, uniform_costs(graph, c));
    std::map<std::string, double> exposed;
    for (const auto& timing : measure_overlap(simulated.timeline)) exposed[timing.name] = timing.exposed_us;
    const std::map<std::string, double> windows = {
        {"fwd.dispatch", c["fwd.attn_core"] + c["fwd.attn_out"]},
        {"fwd.combine", c["fwd.shared"] + 1 + c["fwd.qkv"]},  // 1: view_attn of the next layer
        {"bwd.combine",
         c["bwd.shared"] + c["wgrad.shared"] + c["bwd.attn_out"] + c["wgrad.attn_out"] + c["bwd.attn_core"]},
        {"bwd.dispatch", c["bwd.qkv"] + c["wgrad.qkv"]}};
    for (int layer : {2, 3}) {
      for (const auto& [stage, window] : windows) {
        EXPECT_DOUBLE_EQ(exposed.at(fmt::format("mb0.l{}.{}", layer, stage)), std::max(0.0, comm - window))
            << stage << " of " << comm << " us over a window of " << window;
      }
    }
  }
}

TEST(Simulate, NoOrderBeatsTheLanes) {
  GraphCase made;
  made.layout = "ep=2,dp=2";
  const StageGraph graph = made.graph();
  for (double comm : {1.0, 40.0}) {
    CostTable costs = uniform_costs(graph, {{"fwd.dispatch", comm}, {"fwd.combine", comm}, {"step.grad_reduce", comm}});
    for (bool one_link : {false, true}) {
      costs.one_link = one_link;
      for (uint64_t seed = 0; seed < 30; ++seed) {
        EXPECT_GE(simulate(graph, random_schedule(graph, seed), costs).step_us, lane_bound_us(graph, costs) - 1e-9);
      }
    }
  }
}

TEST(Simulate, StepIsComputePlusExposedOnACpuWithoutLaunchTime) {
  const StageGraph graph = GraphCase{}.graph();
  const CostTable costs = uniform_costs(graph, {{"fwd.dispatch", 9}, {"bwd.combine", 14}});
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Simulation result = simulate(graph, random_schedule(graph, seed), costs);
    EXPECT_NEAR(result.step_us, result.compute_us + result.exposed_us, 1e-6);
  }
  const Simulation without = simulate(graph, reference_schedule(graph), costs.without_communication(graph));
  EXPECT_DOUBLE_EQ(without.exposed_us, 0);
  EXPECT_DOUBLE_EQ(without.step_us, without.compute_us);
}

}  // namespace
}  // namespace farskip
