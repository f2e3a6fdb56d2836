#include "sim/simulate.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace farskip {

std::string lane_name(const Node& node) { return node.is_collective() ? to_string(node.group) : "compute"; }

Simulation simulate(const StageGraph& graph, const Schedule& schedule, const CostTable& costs) {
  Simulation result;
  result.timeline.title = schedule.name;
  double host = 0, compute = 0;  // when each lane is free
  std::map<Group, double> links;
  std::vector<double> completes(graph.num_nodes(), 0);
  auto span = [&](NodeId id, const std::string& lane, SpanKind kind, double begin, double end) {
    const Node& node = graph.node(id);
    result.timeline.spans.push_back({0, lane, graph.name(id), std::string(to_string(node.stage)),
                                     std::string(to_string(node.pass)), kind, begin, end});
  };
  for (const Op& op : schedule.ops) {
    const Node& node = graph.node(op.node);
    const double cost = costs.us[op.node];
    if (costs.host_computes) host = std::max(host, compute);
    switch (op.kind) {
      case OpKind::run: {
        host += costs.launch_us;
        const double begin = std::max(host, compute);
        compute = begin + cost;
        result.compute_us += cost;
        span(op.node, "compute", SpanKind::compute, begin, compute);
        break;
      }
      case OpKind::launch: {
        host += costs.launch_us;
        // Its input is written by what the compute lane does now.
        const double begin = std::max(host, compute);
        double& free = links[costs.link_of(node)];
        completes[op.node] = std::max(begin, free) + cost;
        free = completes[op.node];
        span(op.node, lane_name(node), SpanKind::collective, begin, completes[op.node]);
        break;
      }
      case OpKind::await: {
        // Before the host has come here the compute lane does not wait, it has nothing to do.
        const double waited_from = std::max(host, compute);
        if (completes[op.node] > waited_from) {
          span(op.node, "compute", SpanKind::wait, waited_from, completes[op.node]);
          result.exposed_us += completes[op.node] - waited_from;
          compute = completes[op.node];
        }
        if (row(node.stage).host_sync) host = std::max(host, completes[op.node]);
        break;
      }
    }
  }
  result.step_us = compute;
  for (const auto& [group, free] : links) result.step_us = std::max(result.step_us, free);
  return result;
}

double lane_bound_us(const StageGraph& graph, const CostTable& costs) {
  double compute = 0;
  std::map<Group, double> links;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    (graph.node(id).is_collective() ? links[costs.link_of(graph.node(id))] : compute) += costs.us[id];
  }
  for (const auto& [group, busy] : links) compute = std::max(compute, busy);
  return compute;
}

}  // namespace farskip
