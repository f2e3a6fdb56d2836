#include "sim/exposure.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace farskip {
namespace {

/// For each collective the cost of all compute stages that neither lead to it nor follow from it; 0 for other nodes.
/// 64 collectives share a walk of the graph, a bit each. Declaration order is topological.
std::vector<double> independent_compute_us(const StageGraph& graph, const CostTable& costs) {
  std::vector<NodeId> collectives;
  std::vector<std::vector<NodeId>> predecessors;
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    if (graph.node(n).is_collective()) collectives.push_back(n);
    predecessors.push_back(graph.predecessors(n));
  }
  std::vector<double> result(graph.num_nodes(), 0);
  std::vector<uint64_t> before(graph.num_nodes()), after(graph.num_nodes());
  for (size_t first = 0; first < collectives.size(); first += 64) {
    const size_t count = std::min<size_t>(64, collectives.size() - first);
    std::fill(before.begin(), before.end(), 0);
    std::fill(after.begin(), after.end(), 0);
    for (size_t i = 0; i < count; ++i)
      before[collectives[first + i]] = after[collectives[first + i]] = uint64_t{1} << i;
    for (NodeId n = graph.num_nodes() - 1; n >= 0; --n) {
      for (NodeId p : predecessors[n]) before[p] |= before[n];
    }
    for (NodeId n = 0; n < graph.num_nodes(); ++n) {
      for (NodeId p : predecessors[n]) after[n] |= after[p];
    }
    std::array<double, 64> us{};
    for (NodeId n = 0; n < graph.num_nodes(); ++n) {
      if (graph.node(n).is_collective()) continue;
      const uint64_t related = before[n] | after[n];
      for (size_t i = 0; i < us.size(); ++i) us[i] += (related >> i & 1) == 0 ? costs.us[n] : 0;
    }
    for (size_t i = 0; i < count; ++i) result[collectives[first + i]] = us[i];
  }
  return result;
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
  const std::vector<double> beside_us = independent_compute_us(graph, costs);
  std::map<std::string, Exposure> unavoidable;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (!node.is_collective() || costs.us[id] == 0) continue;
    if (beside_us[id] >= costs.us[id]) continue;
    if (beside_us[id] == 0) unavoidable[graph.name(id)] = Exposure::nothing_beside_it;
    if (node.layer > first && node.layer < last) continue;
    const NodeId middle =
        in_layers(node) ? graph.find(node.microbatch, (first + last) / 2, node.pass, node.stage) : no_node;
    if (middle == no_node || middle == id || beside_us[middle] >= costs.us[middle]) {
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
