#include "exec/profile.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "base/error.h"
#include "base/stats.h"

namespace farskip {

CostProfile::CostProfile(const StageGraph& graph)
    : graph_(graph),
      compute_us_(graph.num_nodes()),
      duration_us_(graph.num_nodes()),
      sent_(graph.num_nodes()),
      received_(graph.num_nodes()) {}

void CostProfile::add(const StepResult& step) {
  std::unordered_map<std::string, NodeId> ids;
  for (NodeId id = 0; id < graph_.num_nodes(); ++id) ids[graph_.name(id)] = id;
  std::vector<double> compute(graph_.num_nodes(), 0);
  for (const Span& span : step.timeline.spans) {
    if (span.kind == SpanKind::compute) compute[ids.at(span.name)] += span.end_us - span.begin_us;
  }
  for (NodeId id = 0; id < graph_.num_nodes(); ++id) compute_us_[id].push_back(compute[id]);
  total_us_.push_back(std::accumulate(compute.begin(), compute.end(), 0.0));
  for (const CollectiveReport& report : step.reports) {
    const NodeId id = ids.at(report.name);
    duration_us_[id].push_back(report.completed_us - report.launched_us);
    sent_[id] = static_cast<double>(report.bytes_sent);
    received_[id] = static_cast<double>(report.bytes_received);
  }
  ++num_steps_;
}

CostTable CostProfile::table(const LinkSpec& link, Transport& world) const {
  FARSKIP_CHECK(num_steps_ > 0);
  const int n = graph_.num_nodes();
  const double low = percentile(total_us_, 25), high = percentile(total_us_, 75);
  const auto ordinary = [&](const std::vector<double>& times) {
    double sum = 0;
    int count = 0;
    for (size_t i = 0; i < times.size(); ++i) {
      if (total_us_[i] < low || total_us_[i] > high) continue;
      sum += times[i];
      ++count;
    }
    return count > 0 ? sum / count : mean(times);  // of two steps neither is in the middle
  };
  at::Tensor costs = at::zeros({n}, at::kDouble);
  double* cost = costs.data_ptr<double>();
  for (NodeId id = 0; id < n; ++id) {
    const Node& node = graph_.node(id);
    if (!node.is_collective()) {
      cost[id] += ordinary(compute_us_[id]) / world.size();
      continue;
    }
    if (link.off()) {
      cost[id] += median(duration_us_[id]) / world.size();
    } else {
      // An all-reduce is two exchanges of half its traffic each.
      const int exchanges = graph_.is_all_reduce(id) ? 2 : 1;
      const Traffic each{static_cast<int64_t>(sent_[id]) / exchanges, static_cast<int64_t>(received_[id]) / exchanges};
      cost[id] += link.duration_us(std::vector<Traffic>(exchanges, each)) / world.size();
    }
    for (ValueId v : node.writes) {
      const auto& readers = graph_.value(v).readers;
      const auto compute =
          std::find_if(readers.begin(), readers.end(), [&](NodeId r) { return !graph_.node(r).is_collective(); });
      if (compute == readers.end()) continue;
      cost[*compute] += ordinary(compute_us_[id]) / world.size();
      break;
    }
  }
  at::Tensor sum = world.size() > 1 ? world.all_reduce(costs, "profile").await() : costs;
  const double* values = sum.data_ptr<double>();
  CostTable table;
  table.us.assign(values, values + n);
  table.host_computes = true;
  table.one_link = !link.off();
  return table;
}

}  // namespace farskip
