#include "schedule/validate.h"

#include <algorithm>

#include "base/error.h"

namespace farskip {

void validate(const StageGraph& graph, const Schedule& schedule) {
  enum class State : uint8_t { absent, in_flight, done };
  std::vector<State> states(graph.num_nodes(), State::absent);
  auto edge = [&](NodeId from, NodeId to) {
    for (const auto* values : {&graph.node(to).reads, &graph.node(to).after}) {
      for (ValueId v : *values) {
        if (graph.value(v).producer == from) return graph.value(v).name;
      }
    }
    return std::string("what its forward stage saved");
  };
  for (size_t i = 0; i < schedule.ops.size(); ++i) {
    const auto [id, kind] = schedule.ops[i];
    const auto name = graph.name(id);
    const bool collective = graph.node(id).is_collective();
    FARSKIP_CHECK(collective != (kind == OpKind::run), name);
    if (kind == OpKind::await) {
      if (states[id] != State::in_flight) {
        fail("schedule '{}', operation {}: {} is awaited {}", schedule.name, i, name,
             states[id] == State::done ? "twice" : "before it is launched");
      }
      states[id] = State::done;
      continue;
    }
    if (states[id] != State::absent) fail("schedule '{}', operation {}: {} appears twice", schedule.name, i, name);
    for (NodeId p : graph.predecessors(id)) {
      if (states[p] == State::done) continue;
      fail(
          "schedule '{}', operation {}: {} reads {}, which {} {}; this order does not fit this graph (broken edge {} "
          "-> {})",
          schedule.name, i, name, edge(p, id), graph.name(p),
          states[p] == State::in_flight ? "has launched but nobody has awaited" : "has not written yet", graph.name(p),
          name);
    }
    states[id] = collective ? State::in_flight : State::done;
  }
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (states[id] == State::done) continue;
    fail("schedule '{}': {} is {}", schedule.name, graph.name(id),
         states[id] == State::absent ? "missing" : "launched but never awaited");
  }
}

namespace {

/// The launches of one rank in one group, in order.
std::vector<NodeId> launches(const RankSchedule& rank, Group group) {
  std::vector<NodeId> result;
  for (const Op& op : rank.schedule->ops) {
    if (op.kind == OpKind::launch && rank.graph->node(op.node).group == group) result.push_back(op.node);
  }
  return result;
}

void check_order(const std::vector<RankSchedule>& ranks, int a, int b, Group group) {
  const auto mine = launches(ranks[a], group), theirs = launches(ranks[b], group);
  for (size_t i = 0; i < std::max(mine.size(), theirs.size()); ++i) {
    const auto left = i < mine.size() ? ranks[a].graph->name(mine[i]) : "nothing";
    const auto right = i < theirs.size() ? ranks[b].graph->name(theirs[i]) : "nothing";
    if (left != right) {
      fail("ranks {} and {} disagree on collective {} of their {} communicator: {} on rank {}, {} on rank {}", a, b, i,
           to_string(group), left, a, right, b);
    }
  }
}

}  // namespace

void validate_ranks(const std::vector<RankSchedule>& ranks) {
  constexpr Group groups[] = {Group::expert, Group::expert_data, Group::world};
  const int num_ranks = static_cast<int>(ranks.size());
  for (int r = 0; r < num_ranks; ++r) {
    validate(*ranks[r].graph, *ranks[r].schedule);
    for (Group group : groups) {
      const int first = ranks[r].members_of(group).front();
      if (first != r) check_order(ranks, first, r, group);
    }
  }
  // Walk all ranks as far as they get. A collective completes when every member has launched it; since orders agree,
  // the n-th launch of each member in a communicator is the same collective.
  struct Progress {
    size_t next = 0;
    std::vector<int> num_launched = std::vector<int>(4, 0);
    std::vector<std::pair<Group, int>> ticket;  // per node: its position in its communicator
  };
  std::vector<Progress> progress(num_ranks);
  for (int r = 0; r < num_ranks; ++r) progress[r].ticket.resize(ranks[r].graph->num_nodes());
  for (bool moved = true; moved;) {
    moved = false;
    for (int r = 0; r < num_ranks; ++r) {
      Progress& mine = progress[r];
      const auto& ops = ranks[r].schedule->ops;
      for (; mine.next < ops.size(); ++mine.next, moved = true) {
        const auto [id, kind] = ops[mine.next];
        const auto group = static_cast<size_t>(ranks[r].graph->node(id).group);
        if (kind == OpKind::launch) mine.ticket[id] = {static_cast<Group>(group), mine.num_launched[group]++};
        if (kind != OpKind::await) continue;
        const auto& members = ranks[r].members[group];
        const bool complete = std::all_of(members.begin(), members.end(), [&](int m) {
          return progress[m].num_launched[group] > mine.ticket[id].second;
        });
        if (!complete) break;
      }
    }
  }
  std::string circle;
  for (int r = 0; r < num_ranks; ++r) {
    if (progress[r].next == ranks[r].schedule->ops.size()) continue;
    circle += fmt::format("{}rank {} awaits {}", circle.empty() ? "" : "; ", r,
                          ranks[r].graph->name(ranks[r].schedule->ops[progress[r].next].node));
  }
  if (!circle.empty()) fail("these schedules wait for each other for ever: {}", circle);
}

std::vector<RankSchedule> uniform_ranks(const StageGraph& graph, const Schedule& schedule, const Layout& layout) {
  const int expert_ranks = layout.expert_ranks(graph.options().phase);
  const int world = layout.world();
  std::vector<RankSchedule> ranks(world);
  for (int r = 0; r < world; ++r) {
    ranks[r].graph = &graph;
    ranks[r].schedule = &schedule;
    for (int other = 0; other < world; ++other) {
      auto add = [&](Group group) { ranks[r].members[static_cast<size_t>(group)].push_back(other); };
      if (other / expert_ranks == r / expert_ranks) add(Group::expert);
      if (other % expert_ranks == r % expert_ranks) add(Group::expert_data);
      add(Group::world);
    }
  }
  return ranks;
}

}  // namespace farskip
