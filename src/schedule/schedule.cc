#include "schedule/schedule.h"

#include <algorithm>
#include <random>

#include "base/error.h"
#include "schedule/text.h"

namespace farskip {

const char* to_string(OpKind kind) {
  constexpr const char* names[] = {"run", "launch", "await"};
  return names[static_cast<size_t>(kind)];
}

Schedule reference_schedule(const StageGraph& graph) {
  Schedule schedule{"reference", {}};
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (graph.node(id).is_collective()) {
      schedule.ops.push_back({id, OpKind::launch});
      schedule.ops.push_back({id, OpKind::await});
    } else {
      schedule.ops.push_back({id, OpKind::run});
    }
  }
  return schedule;
}

Schedule overlapped_schedule(const StageGraph& graph, const std::vector<NodeId>& order, std::string name) {
  Schedule schedule{std::move(name), {}};
  std::vector<NodeId> in_flight;  // in the order of their launch
  for (NodeId id : order) {
    const auto needed = graph.predecessors(id);
    for (size_t i = 0; i < in_flight.size();) {
      if (std::binary_search(needed.begin(), needed.end(), in_flight[i])) {
        schedule.ops.push_back({in_flight[i], OpKind::await});
        in_flight.erase(in_flight.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        ++i;
      }
    }
    const bool collective = graph.node(id).is_collective();
    schedule.ops.push_back({id, collective ? OpKind::launch : OpKind::run});
    if (collective) in_flight.push_back(id);
  }
  for (NodeId id : in_flight) schedule.ops.push_back({id, OpKind::await});
  return schedule;
}

Schedule blocking_schedule(const StageGraph& graph, const Schedule& schedule) {
  Schedule blocking{schedule.name + ", blocking", {}};
  for (NodeId id : order_of(schedule)) {
    const bool collective = graph.node(id).is_collective();
    blocking.ops.push_back({id, collective ? OpKind::launch : OpKind::run});
    if (collective) blocking.ops.push_back({id, OpKind::await});
  }
  return blocking;
}

std::vector<NodeId> order_of(const Schedule& schedule) {
  std::vector<NodeId> order;
  for (const Op& op : schedule.ops) {
    if (op.kind != OpKind::await) order.push_back(op.node);
  }
  return order;
}

Schedule random_schedule(const StageGraph& graph, uint64_t seed) {
  Schedule schedule{fmt::format("random {}", seed), {}};
  std::mt19937_64 random(seed);
  std::vector<int> missing(graph.num_nodes());
  std::vector<std::vector<NodeId>> successors(graph.num_nodes());
  std::vector<Op> ready;
  auto start_of = [&](NodeId id) { return Op{id, graph.node(id).is_collective() ? OpKind::launch : OpKind::run}; };
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const auto needed = graph.predecessors(id);
    missing[id] = static_cast<int>(needed.size());
    for (NodeId p : needed) successors[p].push_back(id);
    if (missing[id] == 0) ready.push_back(start_of(id));
  }
  while (!ready.empty()) {
    std::swap(ready[random() % ready.size()], ready.back());
    const Op op = ready.back();
    ready.pop_back();
    schedule.ops.push_back(op);
    if (op.kind == OpKind::launch) {
      ready.push_back({op.node, OpKind::await});
      continue;
    }
    for (NodeId s : successors[op.node]) {
      if (--missing[s] == 0) ready.push_back(start_of(s));
    }
  }
  return schedule;
}

uint64_t hash(const StageGraph& graph, const Schedule& schedule) {
  uint64_t value = 0xcbf29ce484222325ull;
  for (char c : to_text(graph, schedule)) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return value;
}

}  // namespace farskip
