// Schedules of every kind of graph: named ones are valid, random ones differ, and the text form is exact.

#include "schedule/schedule.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "schedule/hand_orders.h"
#include "schedule/text.h"
#include "schedule/validate.h"
#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using testing::error_of;
using testing::GraphCase;
using ::testing::HasSubstr;

std::string source_file(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(std::filesystem::path(FARSKIP_SOURCE_DIR) / path).rdbuf();
  return text.str();
}

std::vector<NodeId> declaration_order(const StageGraph& graph) {
  std::vector<NodeId> order(graph.num_nodes());
  for (NodeId id = 0; id < graph.num_nodes(); ++id) order[id] = id;
  return order;
}

std::vector<NodeId> launches(const StageGraph& graph, const Schedule& schedule) {
  std::vector<NodeId> result;
  for (const Op& op : schedule.ops) {
    if (op.kind == OpKind::launch) result.push_back(op.node);
  }
  return result;
}

/// Position of an operation.
int at(const StageGraph& graph, const Schedule& schedule, OpKind kind, const std::string& node) {
  const auto found = std::find(schedule.ops.begin(), schedule.ops.end(), Op{graph.find(node), kind});
  EXPECT_NE(found, schedule.ops.end()) << node;
  return static_cast<int>(found - schedule.ops.begin());
}

TEST(Schedules, NamedOnesAreValidOnEveryGraph) {
  for (const GraphCase& made : testing::many_cases()) {
    const StageGraph graph = made.graph();
    for (const Schedule& schedule :
         {reference_schedule(graph), overlapped_schedule(graph, declaration_order(graph), "async"),
          paper_schedule(graph), blocking_schedule(graph, paper_schedule(graph)), two_batch_schedule(graph),
          one_forward_one_backward_schedule(graph), random_schedule(graph, 7)}) {
      EXPECT_NO_THROW(validate(graph, schedule)) << made.describe() << ": " << schedule.name;
      EXPECT_NO_THROW(validate_ranks(uniform_ranks(graph, schedule, graph.options().layout))) << made.describe();
    }
  }
}

TEST(Schedules, AreValidOnEveryPreset) {
  for (const std::string& name : preset_names()) {
    const ModelConfig model = load_model_config(name);
    for (const char* connectivity : {"standard", "farskip", "skip=2,1,0"}) {
      const auto graph = build_graph(model, Connectivity::parse(connectivity, model.num_layers()),
                                     {Phase::train, Layout::parse("ep=8")});
      for (const Schedule& schedule : {reference_schedule(graph), paper_schedule(graph), random_schedule(graph, 1)}) {
        EXPECT_NO_THROW(validate(graph, schedule)) << name << " " << connectivity << " " << schedule.name;
      }
    }
  }
}

TEST(Schedules, ReferenceIsDeclarationOrderAwaitedAtOnce) {
  const StageGraph graph = GraphCase{}.graph();
  const Schedule reference = reference_schedule(graph);
  EXPECT_EQ(order_of(reference), declaration_order(graph));
  for (size_t i = 0; i < reference.ops.size(); ++i) {
    if (reference.ops[i].kind != OpKind::launch) continue;
    EXPECT_EQ(reference.ops[i + 1], (Op{reference.ops[i].node, OpKind::await}));
  }
  const Schedule blocking = blocking_schedule(graph, paper_schedule(graph));
  EXPECT_EQ(order_of(blocking), order_of(paper_schedule(graph)));
  for (size_t i = 0; i < blocking.ops.size(); ++i) {
    if (blocking.ops[i].kind != OpKind::launch) continue;
    EXPECT_EQ(blocking.ops[i + 1], (Op{blocking.ops[i].node, OpKind::await}));
  }
}

TEST(Schedules, OverlappedAwaitsJustBeforeTheFirstReader) {
  const StageGraph graph = GraphCase{}.graph();
  const Schedule schedule = paper_schedule(graph);
  for (size_t i = 0; i < schedule.ops.size(); ++i) {
    if (schedule.ops[i].kind != OpKind::await) continue;
    size_t next = i + 1;  // other awaits of the same reader may stand between
    while (next < schedule.ops.size() && schedule.ops[next].kind == OpKind::await) ++next;
    if (next == schedule.ops.size()) continue;
    const auto needed = graph.predecessors(schedule.ops[next].node);
    EXPECT_TRUE(std::binary_search(needed.begin(), needed.end(), schedule.ops[i].node))
        << graph.name(schedule.ops[i].node) << " is awaited before " << graph.name(schedule.ops[next].node);
  }
}

TEST(Schedules, ThePapersOrderOfOneLayer) {
  const GraphCase made{"mmm"};
  const StageGraph graph = made.graph();
  std::istringstream text(to_text(graph, paper_schedule(graph)));
  // From the layer's first stage to the one before the next layer's, forward and backward.
  std::string part, all;
  bool forward = false, backward = false;
  for (std::string line; std::getline(text, line);) {
    if (line == "run mb0.l1.fwd.view_attn") forward = true;
    if (line == "run mb0.l2.fwd.view_attn") forward = false;
    if (line == "run mb0.l1.bwd.unpermute") {
      backward = true;
      all += "\n";
    }
    if (line == "run mb0.l0.bwd.unpermute") backward = false;
    if (forward || backward) all += line + "\n";
  }
  EXPECT_EQ(all, source_file("tests/golden_text/paper_farskip_layer.txt"));
}

TEST(Schedules, PapersOrderHidesWhatSemanticsSays) {
  const StageGraph graph = GraphCase{"mmm"}.graph();
  const Schedule schedule = paper_schedule(graph);
  auto runs_inside = [&](const char* collective, const char* stage) {
    EXPECT_LT(at(graph, schedule, OpKind::launch, collective), at(graph, schedule, OpKind::run, stage)) << stage;
    EXPECT_LT(at(graph, schedule, OpKind::run, stage), at(graph, schedule, OpKind::await, collective)) << stage;
  };
  runs_inside("mb0.l1.fwd.dispatch", "mb0.l1.fwd.attn_core");
  runs_inside("mb0.l1.fwd.dispatch", "mb0.l1.fwd.attn_out");
  runs_inside("mb0.l1.fwd.combine", "mb0.l1.fwd.shared");
  runs_inside("mb0.l1.fwd.combine", "mb0.l2.fwd.qkv");
  runs_inside("mb0.l1.bwd.combine", "mb0.l1.bwd.shared");
  runs_inside("mb0.l1.bwd.combine", "mb0.l1.bwd.attn_core");
  runs_inside("mb0.l1.bwd.dispatch", "mb0.l1.bwd.qkv");
}

TEST(Schedules, TensorParallelInferenceHidesBothReductions) {
  const StageGraph graph = GraphCase{"mmm", "farskip", Phase::prefill, "tp=2"}.graph();
  const Schedule schedule = paper_schedule(graph);
  const int experts = at(graph, schedule, OpKind::run, "mb0.l1.fwd.experts");
  EXPECT_LT(at(graph, schedule, OpKind::launch, "mb0.l1.fwd.reduce_attn"), experts);
  EXPECT_GT(at(graph, schedule, OpKind::await, "mb0.l1.fwd.reduce_attn"), experts);
  const int next_core = at(graph, schedule, OpKind::run, "mb0.l2.fwd.attn_core");
  EXPECT_LT(at(graph, schedule, OpKind::launch, "mb0.l1.fwd.reduce_routed"), next_core);
  EXPECT_GT(at(graph, schedule, OpKind::await, "mb0.l1.fwd.reduce_routed"), next_core);
}

TEST(Schedules, TwoBatchComputesOneMicrobatchUnderTheOthersCollectives) {
  GraphCase made{"mmm", "standard"};
  made.num_microbatches = 2;
  const StageGraph graph = made.graph();
  const Schedule schedule = two_batch_schedule(graph);
  for (const char* stage : {"fwd.dispatch", "fwd.combine", "bwd.combine", "bwd.dispatch"}) {
    const std::string collective = fmt::format("mb0.l1.{}", stage);
    const int from = at(graph, schedule, OpKind::launch, collective);
    const int to = at(graph, schedule, OpKind::await, collective);
    EXPECT_TRUE(std::any_of(schedule.ops.begin() + from, schedule.ops.begin() + to, [&](const Op& op) {
      return op.kind == OpKind::run && graph.node(op.node).microbatch == 1;
    })) << collective;
  }
}

TEST(Schedules, OneForwardOneBackwardInterleavesThem) {
  GraphCase made{"mmm", "standard"};
  made.num_microbatches = 2;
  const StageGraph graph = made.graph();
  const Schedule schedule = one_forward_one_backward_schedule(graph);
  int changes = 0, last = -1;
  for (const Op& op : schedule.ops) {
    const Node& node = graph.node(op.node);
    const int side = node.microbatch == 0 && node.pass == Pass::backward  ? 0
                     : node.microbatch == 1 && node.pass == Pass::forward ? 1
                                                                          : last;
    changes += side != last;
    last = side;
  }
  EXPECT_GE(changes, 2 * 3);  // at least there and back in each layer
  // The first forward and the last backward stand alone.
  EXPECT_LT(at(graph, schedule, OpKind::run, "mb0.fwd.loss"), at(graph, schedule, OpKind::run, "mb1.fwd.embed"));
  EXPECT_LT(at(graph, schedule, OpKind::run, "mb0.bwd.embed"), at(graph, schedule, OpKind::run, "mb1.bwd.loss"));
}

TEST(Schedules, RandomOnesDifferInWhatTheyLaunchWhen) {
  const StageGraph graph = GraphCase{}.graph();
  const auto reference = launches(graph, reference_schedule(graph));
  std::set<uint64_t> hashes;
  int num_other_orders = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const Schedule schedule = random_schedule(graph, seed);
    validate(graph, schedule);
    hashes.insert(hash(graph, schedule));
    num_other_orders += launches(graph, schedule) != reference;
  }
  EXPECT_EQ(hashes.size(), 100u);
  EXPECT_GE(num_other_orders, 50);
  EXPECT_EQ(random_schedule(graph, 3).ops, random_schedule(graph, 3).ops);
}

TEST(ScheduleText, RoundTripsAndHashesByContent) {
  for (const GraphCase& made : {GraphCase{}, GraphCase{"dm", "standard", Phase::decode, "ep=4"}}) {
    const StageGraph graph = made.graph();
    const Schedule schedule = random_schedule(graph, 5);
    const Schedule read = schedule_from_text(graph, to_text(graph, schedule), "file");
    EXPECT_EQ(read.ops, schedule.ops);
    EXPECT_EQ(hash(graph, read), hash(graph, schedule));  // the name is no part of it
    Schedule swapped = schedule;
    std::swap(swapped.ops.front(), swapped.ops.back());
    EXPECT_NE(hash(graph, swapped), hash(graph, schedule));
  }
}

TEST(ScheduleText, CommentsAndBlankLinesAreSkipped) {
  const StageGraph graph = GraphCase{}.graph();
  const auto read = schedule_from_text(graph, "# by hand\n\n  run mb0.fwd.embed  # first\n", "file");
  EXPECT_EQ(read.ops, (std::vector<Op>{{graph.find("mb0.fwd.embed"), OpKind::run}}));
}

TEST(ScheduleText, ErrorsNameTheLine) {
  const StageGraph graph = GraphCase{}.graph();
  auto error = [&](const char* text) { return error_of([&] { schedule_from_text(graph, text, "a.txt"); }); };
  EXPECT_THAT(error("run mb0.fwd.embed\nstart mb0.l0.fwd.qkv\n"), HasSubstr("a.txt:2: 'start' is not an operation"));
  EXPECT_THAT(error("\nrun mb0.l9.fwd.qkv\n"), HasSubstr("a.txt:2: the graph has no node 'mb0.l9.fwd.qkv'"));
  EXPECT_THAT(error("run\n"), HasSubstr("a.txt:1"));
  EXPECT_THAT(error("run mb0.fwd.embed now\n"), HasSubstr("'now' after the node's name"));
  EXPECT_THAT(error("run mb0.l1.fwd.dispatch\n"), HasSubstr("is a collective; use launch and await"));
  EXPECT_THAT(error("launch mb0.l0.fwd.qkv\n"), HasSubstr("is a compute stage; use run"));
}

}  // namespace
}  // namespace farskip
