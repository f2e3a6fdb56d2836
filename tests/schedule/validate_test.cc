// What validation must catch, and how it says so.

#include "schedule/validate.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "schedule/hand_orders.h"
#include "schedule/text.h"
#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using testing::error_of;
using testing::GraphCase;
using ::testing::HasSubstr;

class Validate : public ::testing::Test {
 protected:
  std::string error(const Schedule& schedule) const {
    return error_of([&] { validate(graph_, schedule); });
  }
  /// The operation's place in the reference schedule.
  std::vector<Op>::iterator find(OpKind kind, const std::string& node) {
    const auto found = std::find(schedule_.ops.begin(), schedule_.ops.end(), Op{graph_.find(node), kind});
    EXPECT_NE(found, schedule_.ops.end());
    return found;
  }

  StageGraph graph_ = GraphCase{"mm"}.graph();
  Schedule schedule_ = reference_schedule(graph_);
};

TEST_F(Validate, AMissingNode) {
  schedule_.ops.erase(find(OpKind::run, "step.optimizer"));
  EXPECT_THAT(error(schedule_), HasSubstr("step.optimizer is missing"));
}

TEST_F(Validate, ANodeTwice) {
  schedule_.ops.push_back({graph_.find("mb0.l1.fwd.qkv"), OpKind::run});
  EXPECT_THAT(error(schedule_), HasSubstr("mb0.l1.fwd.qkv appears twice"));
}

TEST_F(Validate, ANodeBeforeWhatItReads) {
  std::swap(*find(OpKind::run, "mb0.l0.fwd.attn_core"), *find(OpKind::run, "mb0.l0.fwd.attn_out"));
  EXPECT_THAT(error(schedule_), AllOf(HasSubstr("mb0.l0.fwd.attn_out reads mb0.l0.core"),
                                      HasSubstr("broken edge mb0.l0.fwd.attn_core -> mb0.l0.fwd.attn_out")));
}

TEST_F(Validate, ABackwardNodeBeforeItsForwardNode) {
  const Op early{graph_.find("mb0.bwd.loss"), OpKind::run};
  schedule_.ops.erase(find(OpKind::run, "mb0.bwd.loss"));
  schedule_.ops.insert(schedule_.ops.begin(), early);
  EXPECT_THAT(error(schedule_), HasSubstr("what its forward stage saved"));
}

TEST_F(Validate, AnAwaitBeforeItsLaunch) {
  std::swap(*find(OpKind::launch, "mb0.l0.fwd.dispatch"), *find(OpKind::await, "mb0.l0.fwd.dispatch"));
  EXPECT_THAT(error(schedule_), HasSubstr("mb0.l0.fwd.dispatch is awaited before it is launched"));
}

TEST_F(Validate, AnAwaitTwice) {
  schedule_.ops.push_back({graph_.find("mb0.l0.fwd.dispatch"), OpKind::await});
  EXPECT_THAT(error(schedule_), HasSubstr("mb0.l0.fwd.dispatch is awaited twice"));
}

TEST_F(Validate, ACollectiveThatNobodyAwaits) {
  schedule_ = reference_schedule(graph_ = GraphCase{"mm", "farskip", Phase::prefill, "tp=2"}.graph());
  const auto node = graph_.find("mb0.l1.fwd.reduce_attn");
  schedule_.ops.erase(find(OpKind::await, "mb0.l1.fwd.reduce_attn"));
  EXPECT_THAT(error(schedule_), HasSubstr(graph_.name(node) + " has launched but nobody has awaited"));
  // With no reader left behind it, it is the end that finds it.
  std::erase_if(schedule_.ops, [&](const Op& op) { return op.node > node; });
  EXPECT_THAT(error(schedule_), HasSubstr("launched but never awaited"));
}

TEST_F(Validate, AFarskipOrderOnTheStandardGraph) {
  const StageGraph standard = GraphCase{"mm", "standard"}.graph();
  // The text form travels; what it means depends on the graph.
  const std::string text = to_text(graph_, paper_schedule(graph_));
  const Schedule schedule = schedule_from_text(standard, text, "farskip.txt");
  EXPECT_THAT(error_of([&] { validate(standard, schedule); }),
              AllOf(HasSubstr("schedule 'farskip.txt'"), HasSubstr("does not fit this graph"),
                    HasSubstr("broken edge mb0.l0.fwd.attn_out -> mb0.l0.fwd.view_ff")));
}

/// Ranks that all hold the same members in each communicator.
RankSchedule rank(const StageGraph& graph, const Schedule& schedule, std::vector<int> expert,
                  std::vector<int> expert_data, std::vector<int> world) {
  return {&graph, &schedule, {{}, std::move(expert), std::move(expert_data), std::move(world)}};
}

TEST_F(Validate, RanksThatDisagreeOnTheOrderWithinACommunicator) {
  // Two microbatches one after the other on rank 0, side by side on rank 1: each is valid by itself.
  GraphCase made{"mm"};
  made.num_microbatches = 2;
  const StageGraph graph = made.graph();
  const Schedule one = reference_schedule(graph), other = two_batch_schedule(graph);
  validate_ranks({rank(graph, one, {0}, {0}, {0}), rank(graph, other, {1}, {1}, {1})});
  EXPECT_THAT(error_of([&] {
                validate_ranks({rank(graph, one, {0, 1}, {0}, {0, 1}), rank(graph, other, {0, 1}, {1}, {0, 1})});
              }),
              AllOf(HasSubstr("ranks 0 and 1 disagree on collective 2 of their expert communicator"),
                    HasSubstr("mb0.l0.fwd.combine on rank 0, mb1.l0.fwd.counts on rank 1")));
}

TEST_F(Validate, RanksOfWhichOneHasMoreToSay) {
  const StageGraph other = GraphCase{"m"}.graph();
  const Schedule shorter = reference_schedule(other);
  EXPECT_THAT(
      error_of([&] {
        validate_ranks({rank(graph_, schedule_, {0, 1}, {0}, {0, 1}), rank(other, shorter, {0, 1}, {1}, {0, 1})});
      }),
      HasSubstr("disagree"));
}

TEST_F(Validate, DisagreementBetweenRanksThatNeverMeetIsFine) {
  const StageGraph graph = GraphCase{"mm", "farskip", Phase::train, "ep=2,dp=1", true, 1, Scope::gradients}.graph();
  const Schedule reference = reference_schedule(graph), paper = paper_schedule(graph);
  validate_ranks({rank(graph, reference, {0, 1}, {0}, {0, 1}), rank(graph, reference, {0, 1}, {1}, {0, 1}),
                  rank(graph, paper, {2, 3}, {2}, {2, 3}), rank(graph, paper, {2, 3}, {3}, {2, 3})});
}

TEST(ValidateRanks, ACircleOverTwoCommunicators) {
  // Ranks 0 and 1 share both communicators. Within each they agree, but 0 awaits the experts' reduction before it
  // launches the layer's, and 1 does it the other way round.
  GraphCase made{"m"};
  made.layout = "ep=1,dp=2";
  const StageGraph graph = made.graph();
  const NodeId layer = graph.find("l0.step.grad_reduce"), experts = graph.find("l0.step.grad_reduce_experts");
  auto without = [&](const Schedule& schedule) {
    Schedule rest = schedule;
    std::erase_if(rest.ops, [&](const Op& op) { return op.node == layer || op.node == experts; });
    return rest;
  };
  auto with = [&](NodeId first, NodeId second, std::string name) {
    Schedule schedule = without(reference_schedule(graph));
    schedule.name = std::move(name);
    auto at =
        std::find(schedule.ops.begin(), schedule.ops.end(), Op{graph.find("embed.step.grad_reduce"), OpKind::launch});
    schedule.ops.insert(
        at, {{first, OpKind::launch}, {first, OpKind::await}, {second, OpKind::launch}, {second, OpKind::await}});
    return schedule;
  };
  const Schedule one = with(layer, experts, "one"), other = with(experts, layer, "other");
  validate(graph, one);
  validate(graph, other);
  const auto together = [&](const Schedule& a, const Schedule& b) {
    validate_ranks({rank(graph, a, {0}, {0, 1}, {0, 1}), rank(graph, b, {1}, {0, 1}, {0, 1})});
  };
  together(one, one);
  together(other, other);
  EXPECT_THAT(error_of([&] { together(one, other); }),
              AllOf(HasSubstr("wait for each other for ever"), HasSubstr("rank 0 awaits l0.step.grad_reduce;"),
                    HasSubstr("rank 1 awaits l0.step.grad_reduce_experts")));
}

TEST(ValidateRanks, UniformRanksAreAGrid) {
  GraphCase made{"m"};
  made.layout = "ep=2,dp=3";
  const StageGraph graph = made.graph();
  const Schedule schedule = reference_schedule(graph);
  const auto ranks = uniform_ranks(graph, schedule, graph.options().layout);
  ASSERT_EQ(ranks.size(), 6u);
  EXPECT_EQ(ranks[3].members_of(Group::expert), (std::vector<int>{2, 3}));
  EXPECT_EQ(ranks[3].members_of(Group::expert_data), (std::vector<int>{1, 3, 5}));
  EXPECT_EQ(ranks[3].members_of(Group::world), (std::vector<int>{0, 1, 2, 3, 4, 5}));
  validate_ranks(ranks);
}

}  // namespace
}  // namespace farskip
