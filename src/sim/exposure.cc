#include "sim/exposure.h"

#include <algorithm>
#include <map>
#include <string>

namespace farskip {
namespace {

/// Cost of all compute stages that neither lead to `id` nor follow from it. Declaration order is topological.
double independent_compute_us(const StageGraph& graph, const CostTable& costs, NodeId id) {
  std::vector<bool> before(graph.num_nodes(), false), after(graph.num_nodes(), false);
  before[id] = after[id] = true;
  for (NodeId n = id; n >= 0; --n) {
    if (!before[n]) continue;
    for (NodeId p : graph.predecessors(n)) before[p] = true;
  }
  for (NodeId n = id + 1; n < graph.num_nodes(); ++n) {
    const auto needed = graph.predecessors(n);
    after[n] = std::any_of(needed.begin(), needed.end(), [&](NodeId p) { return after[p]; });
  }
  double us = 0;
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    if (!before[n] && !after[n] && !graph.node(n).is_collective()) us += costs.us[n];
  }
  return us;
}

}  // namespace

ExposureHint exposure_hint(const StageGraph& graph, const CostTable& costs, bool overlapped) {
  auto in_layers = [&](const Node& node) { return node.layer >= 0 && node.layer < graph.num_layers(); };
  int first = graph.num_layers(), last = -1;
  for (const Node& node : graph.nodes()) {
    if (!node.is_collective() || !in_layers(node)) continue;
    first = std::min(first, node.layer);
    last = std::max(last, node.layer);
  }
  std::map<std::string, Exposure> unavoidable;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (!node.is_collective() || costs.us[id] == 0) continue;
    const double beside_us = independent_compute_us(graph, costs, id);
    if (beside_us >= costs.us[id]) continue;
    if (beside_us == 0) unavoidable[graph.name(id)] = Exposure::nothing_beside_it;
    if (node.layer > first && node.layer < last) continue;
    const NodeId middle =
        in_layers(node) ? graph.find(node.microbatch, (first + last) / 2, node.pass, node.stage) : no_node;
    if (middle == no_node || middle == id || independent_compute_us(graph, costs, middle) >= costs.us[middle]) {
      unavoidable[graph.name(id)] = Exposure::first_or_last_layer;
    }
  }
  return [unavoidable = std::move(unavoidable), overlapped](const CollectiveTiming& timing) {
    const auto found = unavoidable.find(timing.name);
    if (found != unavoidable.end()) return found->second;
    return overlapped ? Exposure::none : Exposure::not_enabled;
  };
}

}  // namespace farskip
