#include "sim/search.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <random>
#include <set>
#include <sstream>

#include "base/error.h"
#include "schedule/hand_orders.h"
#include "schedule/text.h"
#include "schedule/validate.h"

namespace farskip {
namespace {

/// Priorities of one list schedule: among ready stages the smallest comes first.
struct Priorities {
  std::string name;
  std::vector<double> value;
};

struct Edges {
  std::vector<std::vector<NodeId>> successors;
  std::vector<int> num_predecessors;

  explicit Edges(const StageGraph& graph) : successors(graph.num_nodes()), num_predecessors(graph.num_nodes()) {
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const auto needed = graph.predecessors(id);
      num_predecessors[id] = static_cast<int>(needed.size());
      for (NodeId p : needed) successors[p].push_back(id);
    }
  }
};

/// Longest path from a node to the end of the step, itself included. Declaration order is topological.
std::vector<double> bottom_levels(const StageGraph& graph, const Edges& edges, const CostTable& costs) {
  std::vector<double> level(graph.num_nodes());
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    for (NodeId s : edges.successors[id]) level[id] = std::max(level[id], level[s]);
    level[id] += costs.us[id];
  }
  return level;
}

/// Greedy list scheduling in simulated time: collectives are launched as soon as they can be, and whenever the compute
/// lane is free it takes the ready stage with the smallest priority; it waits only where nothing is ready.
std::vector<NodeId> list_schedule(const StageGraph& graph, const Edges& edges, const CostTable& costs,
                                  const Priorities& priorities, int max_in_flight) {
  using Entry = std::pair<double, NodeId>;
  std::set<Entry> ready;                                                // compute stages whose inputs are there
  std::set<Entry> arriving;                                             // (completion, collective)
  std::vector<std::set<Entry>> held(graph.options().num_microbatches);  // kept back to bound memory
  std::vector<int> missing = edges.num_predecessors;
  std::vector<int> backward_left(graph.options().num_microbatches, 0);
  std::vector<double> links(4, 0);
  std::vector<NodeId> order;
  double now = 0;
  int allowed = max_in_flight;  // microbatches below this may begin
  for (const Node& node : graph.nodes()) {
    if (node.pass == Pass::backward) ++backward_left[node.microbatch];
  }
  auto launch = [&](NodeId id) {
    double& free = links[static_cast<size_t>(costs.link_of(graph.node(id)))];
    free = std::max(now, free) + costs.us[id];
    arriving.insert({free, id});
    order.push_back(id);
  };
  auto enable = [&](NodeId id) {
    const Node& node = graph.node(id);
    if (node.is_collective()) {
      launch(id);
    } else if (node.pass == Pass::forward && graph.options().scope != Scope::forward && node.microbatch >= allowed) {
      held[node.microbatch].insert({priorities.value[id], id});
    } else {
      ready.insert({priorities.value[id], id});
    }
  };
  auto finish = [&](NodeId id) {
    const Node& node = graph.node(id);
    for (NodeId s : edges.successors[id]) {
      if (--missing[s] == 0) enable(s);
    }
    if (node.pass == Pass::backward && --backward_left[node.microbatch] == 0) {
      const int next = allowed++;
      if (next < graph.options().num_microbatches) ready.insert(held[next].begin(), held[next].end());
    }
  };
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (missing[id] == 0) enable(id);
  }
  while (!ready.empty() || !arriving.empty()) {
    while (!arriving.empty() && (arriving.begin()->first <= now || ready.empty())) {
      const auto [when, id] = *arriving.begin();
      arriving.erase(arriving.begin());
      now = std::max(now, when);
      finish(id);
    }
    if (ready.empty()) continue;
    const NodeId id = ready.begin()->second;
    ready.erase(ready.begin());
    order.push_back(id);
    now += costs.us[id];
    finish(id);
  }
  FARSKIP_CHECK(static_cast<int>(order.size()) == graph.num_nodes(), "list scheduling left nodes out");
  return order;
}

/// Position of each node in the paper's order; weight gradients `slots` layers later, so that they move into gaps.
Priorities paper_priorities(const StageGraph& graph, const std::vector<NodeId>& paper, int delay, std::string name) {
  Priorities result{std::move(name), std::vector<double>(graph.num_nodes())};
  for (size_t i = 0; i < paper.size(); ++i) {
    const bool wgrad = graph.node(paper[i]).pass == Pass::wgrad;
    result.value[paper[i]] = static_cast<double>(i) + (wgrad ? delay : 0);
  }
  return result;
}

}  // namespace

SearchResult search_schedule(const StageGraph& graph, const CostTable& costs, const SearchOptions& options) {
  const Edges edges(graph);
  const Schedule paper = paper_schedule(graph);
  const auto paper_order = order_of(paper);
  const auto levels = bottom_levels(graph, edges, costs);
  const double longest = *std::max_element(levels.begin(), levels.end());

  std::vector<Priorities> rules;
  const int per_layer = 1 + graph.num_nodes() / std::max(1, graph.num_layers() * graph.options().num_microbatches);
  rules.push_back(paper_priorities(graph, paper_order, 0, "paper order, gaps filled"));
  rules.push_back(paper_priorities(graph, paper_order, per_layer / 4, "paper order, weight gradients in gaps"));
  rules.push_back(
      paper_priorities(graph, paper_order, per_layer, "paper order, weight gradients in gaps of two layers"));
  rules.push_back(paper_priorities(graph, paper_order, graph.num_nodes(), "paper order, weight gradients last"));
  auto by_level = [&](bool defer, std::string name) {
    Priorities p{std::move(name), std::vector<double>(graph.num_nodes())};
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      p.value[id] = -levels[id] + (defer && graph.node(id).pass == Pass::wgrad ? longest : 0);
    }
    return p;
  };
  rules.push_back(by_level(false, "critical path"));
  rules.push_back(by_level(true, "critical path, weight gradients in gaps"));
  std::mt19937_64 random(options.seed);
  for (int i = 0; i < options.num_perturbed; ++i) {
    Priorities p = rules[i % 4];
    p.name = fmt::format("{}, perturbed {}", p.name, i);
    // Uniform in [0, 1) from the generator's own bits: the standard distributions differ between libraries.
    for (double& v : p.value) v += 8.0 * static_cast<double>(random() >> 11) * 0x1p-53;
    rules.push_back(std::move(p));
  }

  std::vector<Schedule> schedules = {paper};
  for (const Priorities& rule : rules) {
    const auto order = list_schedule(graph, edges, costs, rule, options.max_microbatches_in_flight);
    schedules.push_back(overlapped_schedule(graph, order, rule.name));
  }
  SearchResult best;
  double fastest = 0;
  for (const Schedule& schedule : schedules) {
    const double step_us = simulate(graph, schedule, costs).step_us;
    best.candidates.push_back({schedule.name, step_us});
    fastest = fastest == 0 ? step_us : std::min(fastest, step_us);
  }
  // Among orders that are equally fast in simulation the one that bears a slower link best: real times vary.
  const CostTable slower = costs.with_slower_communication(graph, 1.5);
  double best_slower = 0;
  for (size_t i = 0; i < schedules.size(); ++i) {
    if (best.candidates[i].step_us > fastest * (1 + options.tolerance)) continue;
    const double slower_us = simulate(graph, schedules[i], slower).step_us;
    if (best_slower > 0 && slower_us >= best_slower) continue;
    best_slower = slower_us;
    best.step_us = best.candidates[i].step_us;
    best.schedule = schedules[i];
  }
  best.schedule.name = fmt::format("search (from {})", best.schedule.name);
  validate(graph, best.schedule);
  return best;
}

const char* schedule_help() {
  return "reference (declaration order, every collective awaited at once) | async (declaration order, awaited by the "
         "first reader) | paper (AMD's hand order) | search (the best of paper and several list schedules) | "
         "two-batch | 1f1b | FILE (text form, as `farskip show --format schedule` prints it)";
}

Schedule named_schedule(const std::string& name, const StageGraph& graph, const CostTable& costs) {
  Schedule schedule;
  if (name == "reference") {
    schedule = reference_schedule(graph);
  } else if (name == "async") {
    std::vector<NodeId> order(graph.num_nodes());
    std::iota(order.begin(), order.end(), 0);
    schedule = overlapped_schedule(graph, order, "async");
  } else if (name == "paper") {
    schedule = paper_schedule(graph);
  } else if (name == "search") {
    schedule = search_schedule(graph, costs).schedule;
  } else if (name == "two-batch") {
    schedule = two_batch_schedule(graph);
  } else if (name == "1f1b") {
    schedule = one_forward_one_backward_schedule(graph);
  } else {
    std::ifstream file(name);
    if (!file) fail("schedule '{}' is neither a name nor a readable file; expected {}", name, schedule_help());
    std::stringstream text;
    text << file.rdbuf();
    schedule = schedule_from_text(graph, text.str(), name);
  }
  validate(graph, schedule);
  return schedule;
}

}  // namespace farskip
