#include "sim/simulate.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace farskip {

std::string lane_name(const Node& node) { return node.is_collective() ? to_string(node.group) : "compute"; }

namespace {

Simulation walk(const StageGraph& graph, const Schedule& schedule, const std::vector<CostTable>& ranks,
                bool record_spans) {
  FARSKIP_CHECK(!ranks.empty());
  struct Rank {
    double host = 0, compute = 0;  // when each lane is free
  };
  const size_t num_ranks = ranks.size();
  const double share = 1.0 / static_cast<double>(num_ranks);
  Simulation result;
  result.timeline.title = schedule.name;
  if (record_spans) result.timeline.spans.reserve(schedule.ops.size() * num_ranks);
  std::vector<Rank> lanes(num_ranks);
  std::map<Group, double> links;
  std::vector<double> starts(graph.num_nodes(), 0), completes(graph.num_nodes(), 0);
  auto span = [&](size_t rank, NodeId id, const std::string& lane, SpanKind kind, double begin, double end) {
    if (!record_spans) return;
    const Node& node = graph.node(id);
    result.timeline.spans.push_back({static_cast<int>(rank), lane, graph.name(id), std::string(to_string(node.stage)),
                                     std::string(to_string(node.pass)), kind, begin, end});
  };
  // The lane stands still until `end`.
  auto wait = [&](size_t rank, NodeId id, SpanKind kind, double begin, double end, double& total) {
    if (end <= begin) return;
    span(rank, id, "compute", kind, begin, end);
    total += (end - begin) * share;
    lanes[rank].compute = end;
  };
  for (const Op& op : schedule.ops) {
    const Node& node = graph.node(op.node);
    double cost = 0;
    for (size_t r = 0; r < num_ranks; ++r) {
      auto& [host, compute] = lanes[r];
      const CostTable& costs = ranks[r];
      if (costs.host_computes) host = std::max(host, compute);
      if (op.kind != OpKind::await) host += costs.launch_us;
      cost = std::max(cost, costs.us[op.node]);
      if (op.kind == OpKind::run) {
        const double begin = std::max(host, compute);
        compute = begin + costs.us[op.node];
        result.compute_us += costs.us[op.node] * share;
        span(r, op.node, "compute", SpanKind::compute, begin, compute);
      } else if (op.kind == OpKind::launch) {
        // Its input is written by what the compute lane does now.
        starts[op.node] = std::max({starts[op.node], host, compute});
      } else {
        // Before the host has come here the compute lane does not wait, it has nothing to do.
        const double waited_from = std::max(host, compute);
        const double started = std::max(waited_from, starts[op.node]);
        wait(r, op.node, SpanKind::skew, waited_from, started, result.skew_us);
        wait(r, op.node, SpanKind::wait, started, completes[op.node], result.exposed_us);
        if (row(node.stage).host_sync) host = std::max(host, completes[op.node]);
      }
    }
    if (op.kind != OpKind::launch) continue;
    double& free = links[ranks.front().link_of(node)];
    free = completes[op.node] = std::max(starts[op.node], free) + cost;
    for (size_t r = 0; r < num_ranks; ++r)
      span(r, op.node, lane_name(node), SpanKind::collective, starts[op.node], free);
  }
  for (const Rank& rank : lanes) result.step_us = std::max(result.step_us, rank.compute);
  for (const auto& [group, free] : links) result.step_us = std::max(result.step_us, free);
  return result;
}

}  // namespace

Simulation simulate(const StageGraph& graph, const Schedule& schedule, const CostTable& costs) {
  return walk(graph, schedule, {costs}, true);
}

Simulation simulate(const StageGraph& graph, const Schedule& schedule, const std::vector<CostTable>& ranks) {
  return walk(graph, schedule, ranks, true);
}

double simulated_step_us(const StageGraph& graph, const Schedule& schedule, const std::vector<CostTable>& ranks) {
  return walk(graph, schedule, ranks, false).step_us;
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
