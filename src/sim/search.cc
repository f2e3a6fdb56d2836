#include "sim/search.h"

#include <algorithm>
#include <deque>
#include <fstream>
#include <map>
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
  /// Passes whose stages keep exactly this order: the lane rather waits than runs a later one early, which may be what
  /// the next collective hides under.
  bool strict_forward = false, strict_backward = false;

  bool strict(const Node& node) const {
    return (node.pass == Pass::forward && strict_forward) || (node.pass == Pass::backward && strict_backward);
  }
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
/// lane is free it takes the ready stage with the smallest priority; it waits only where nothing is ready. Gradient
/// reductions, which nobody needs before the end, must not stand in the way of the layers' collectives on the same
/// link: they wait for a stage that covers most of them, or until no such collective is left. Weights are gathered a
/// few layers ahead of the forward pass.
class ListScheduler {
 public:
  ListScheduler(const StageGraph& graph, const Edges& edges, const CostTable& costs, const Priorities& priorities,
                int max_in_flight)
      : graph_(graph),
        edges_(edges),
        costs_(costs),
        priorities_(priorities),
        held_(graph.options().num_microbatches),
        missing_(edges.num_predecessors),
        backward_left_(graph.options().num_microbatches, 0),
        links_(4, 0),
        allowed_(max_in_flight) {
    for (const Node& node : graph.nodes()) {
      if (node.pass == Pass::backward) ++backward_left_[node.microbatch];
      if (node.is_collective() && node.pass != Pass::step) ++layer_collectives_left_;
    }
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const Node& node = graph.node(id);
      if (!node.is_collective() && priorities.strict(node)) sequences_[{node.microbatch, node.pass}].push_back(id);
    }
    for (auto& [key, nodes] : sequences_) {
      std::sort(nodes.begin(), nodes.end(),
                [&](NodeId a, NodeId b) { return priorities.value[a] > priorities.value[b]; });
    }
  }

  std::vector<NodeId> run() {
    for (NodeId id = 0; id < graph_.num_nodes(); ++id) {
      if (missing_[id] == 0) enable(id);
    }
    while (!ready_.empty() || !arriving_.empty() || !reductions_.empty() || !gathers_.empty()) {
      auto chosen = choose();
      while (!arriving_.empty() && (arriving_.begin()->first <= now_ || chosen == ready_.end())) {
        const auto [when, id] = *arriving_.begin();
        arriving_.erase(arriving_.begin());
        now_ = std::max(now_, when);
        finish(id);
        chosen = choose();
      }
      launch_gathers(chosen == ready_.end() ? no_node : chosen->second);
      launch_reductions(chosen == ready_.end() ? no_node : chosen->second);
      if (chosen == ready_.end()) {
        FARSKIP_CHECK(!arriving_.empty(), "list scheduling is stuck");
        continue;
      }
      const NodeId id = chosen->second;
      ready_.erase(chosen);
      if (priorities_.strict(graph_.node(id))) sequence_of(id).pop_back();
      order_.push_back(id);
      now_ += costs_.us[id];
      finish(id);
    }
    FARSKIP_CHECK(static_cast<int>(order_.size()) == graph_.num_nodes(), "list scheduling left nodes out");
    return std::move(order_);
  }

 private:
  using Entry = std::pair<double, NodeId>;

  std::vector<NodeId>& sequence_of(NodeId id) { return sequences_[{graph_.node(id).microbatch, graph_.node(id).pass}]; }

  /// The ready stage to run next; the end where there is none.
  std::set<Entry>::iterator choose() {
    return std::find_if(ready_.begin(), ready_.end(), [&](const Entry& entry) {
      return !priorities_.strict(graph_.node(entry.second)) || sequence_of(entry.second).back() == entry.second;
    });
  }

  double& link(NodeId id) { return links_[static_cast<size_t>(costs_.link_of(graph_.node(id)))]; }

  void launch(NodeId id) {
    link(id) = std::max(now_, link(id)) + costs_.us[id];
    arriving_.insert({link(id), id});
    order_.push_back(id);
    if (graph_.node(id).pass != Pass::step) --layer_collectives_left_;
  }

  /// `next`: the stage that runs now, or no_node.
  void launch_gathers(NodeId next) {
    if (next != no_node && graph_.node(next).pass == Pass::forward) front_ = std::max(front_, graph_.node(next).layer);
    for (; !gathers_.empty(); gathers_.pop_front()) {
      const bool stuck = next == no_node && arriving_.empty();
      if (graph_.node(gathers_.front()).layer > front_ + gather_ahead && !stuck) return;
      launch(gathers_.front());
    }
  }

  /// `next`: the stage that runs now, or no_node.
  void launch_reductions(NodeId next) {
    while (!reductions_.empty()) {
      const NodeId id = reductions_.front();
      const double covered = next == no_node ? 0 : costs_.us[next];
      const bool shares_link = costs_.one_link;
      const bool stuck = next == no_node && arriving_.empty();
      const bool now = link(id) <= now_ && covered >= 0.8 * costs_.us[id];
      if (shares_link && layer_collectives_left_ > 0 && !now && !stuck) return;
      reductions_.pop_front();
      launch(id);
    }
  }

  void enable(NodeId id) {
    const Node& node = graph_.node(id);
    if (is_gather(node.stage)) {
      gathers_.push_back(id);
    } else if (is_gradient_reduction(node.stage)) {
      reductions_.push_back(id);
    } else if (node.is_collective()) {
      launch(id);
    } else if ((node.pass == Pass::forward || node.pass == Pass::teacher) && graph_.options().scope != Scope::forward &&
               node.microbatch >= allowed_) {
      held_[node.microbatch].insert({priorities_.value[id], id});
    } else {
      ready_.insert({priorities_.value[id], id});
    }
  }

  void finish(NodeId id) {
    const Node& node = graph_.node(id);
    for (NodeId s : edges_.successors[id]) {
      if (--missing_[s] == 0) enable(s);
    }
    if (node.pass == Pass::backward && --backward_left_[node.microbatch] == 0) {
      const int next = allowed_++;
      if (next < graph_.options().num_microbatches) ready_.insert(held_[next].begin(), held_[next].end());
    }
  }

  const StageGraph& graph_;
  const Edges& edges_;
  const CostTable& costs_;
  const Priorities& priorities_;
  std::set<Entry> ready_;                                          ///< compute stages whose inputs are there
  std::set<Entry> arriving_;                                       ///< (completion, collective)
  std::deque<NodeId> gathers_;                                     ///< of weights, in the order of their layers
  std::deque<NodeId> reductions_;                                  ///< gradient reductions that wait for a good moment
  std::vector<std::set<Entry>> held_;                              ///< kept back to bound memory
  std::map<std::pair<int, Pass>, std::vector<NodeId>> sequences_;  ///< strict passes, the next stage last
  std::vector<int> missing_;
  std::vector<int> backward_left_;
  std::vector<double> links_;  ///< when each is free
  std::vector<NodeId> order_;
  double now_ = 0;
  int allowed_;  ///< microbatches below this may begin
  int layer_collectives_left_ = 0;
  int front_ = -1;  ///< the layer that the forward pass has reached
};

/// Position of each node in the paper's order; weight gradients `slots` layers later, so that they move into gaps.
Priorities paper_priorities(const StageGraph& graph, const std::vector<NodeId>& paper, int delay, std::string name) {
  Priorities result{.name = std::move(name), .value = std::vector<double>(graph.num_nodes())};
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
  auto strict = [](Priorities p, bool backward) {
    p.strict_forward = true;
    p.strict_backward = backward;
    p.name += backward ? ", strict" : ", strict forward";
    return p;
  };
  for (bool backward : {true, false}) {
    const std::string name = "paper order, weight gradients in gaps";
    rules.push_back(strict(paper_priorities(graph, paper_order, per_layer / 4, name), backward));
    rules.push_back(strict(paper_priorities(graph, paper_order, per_layer, name + " of two layers"), backward));
  }
  rules.push_back(
      strict(paper_priorities(graph, paper_order, graph.num_nodes(), "paper order, weight gradients last"), true));
  rules.push_back(paper_priorities(graph, paper_order, 0, "paper order, gaps filled"));
  rules.push_back(paper_priorities(graph, paper_order, per_layer / 4, "paper order, weight gradients in gaps"));
  rules.push_back(
      paper_priorities(graph, paper_order, per_layer, "paper order, weight gradients in gaps of two layers"));
  rules.push_back(paper_priorities(graph, paper_order, graph.num_nodes(), "paper order, weight gradients last"));
  std::vector<Schedule> schedules = {paper};
  if (graph.options().teacher) {
    const Schedule beside = two_models_schedule(graph);
    const auto order = order_of(beside);
    rules.push_back(strict(paper_priorities(graph, order, per_layer / 4, "teacher beside student"), true));
    rules.push_back(paper_priorities(graph, order, per_layer / 4, "teacher beside student, gaps filled"));
    schedules.push_back(beside);
  }
  auto by_level = [&](bool defer, std::string name) {
    Priorities p{.name = std::move(name), .value = std::vector<double>(graph.num_nodes())};
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      p.value[id] = -levels[id] + (defer && graph.node(id).pass == Pass::wgrad ? longest : 0);
    }
    return p;
  };
  rules.push_back(by_level(false, "critical path"));
  rules.push_back(by_level(true, "critical path, weight gradients in gaps"));
  std::mt19937_64 random(options.seed);
  for (int i = 0; i < options.num_perturbed; ++i) {
    Priorities p = rules[i % 8];
    p.name = fmt::format("{}, perturbed {}", p.name, i);
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      if (p.strict(graph.node(id))) continue;
      // Uniform in [0, 1) from the generator's own bits: the standard distributions differ between libraries.
      p.value[id] += 8.0 * static_cast<double>(random() >> 11) * 0x1p-53;
    }
    rules.push_back(std::move(p));
  }

  // Each rule plans with several speeds of the links: orders made for slower ones leave slack in every window.
  for (double slowdown : {1.0, 1.25, 1.5, 2.0}) {
    const CostTable planned = costs.with_slower_communication(graph, slowdown);
    for (const Priorities& rule : rules) {
      const auto order = ListScheduler(graph, edges, planned, rule, options.max_microbatches_in_flight).run();
      schedules.push_back(overlapped_schedule(graph, order, rule.name));
      if (slowdown > 1) schedules.back().name += fmt::format(", for links {} times slower", slowdown);
    }
  }
  SearchResult best;
  double fastest = 0;
  for (const Schedule& schedule : schedules) {
    const double step_us = simulated_step_us(graph, schedule, {costs});
    best.candidates.push_back({schedule.name, step_us});
    fastest = fastest == 0 ? step_us : std::min(fastest, step_us);
  }
  // Among orders that are equally fast (and no slower than the paper's) the one that bears uneven ranks best.
  const double limit = std::min(fastest * (1 + options.tolerance), best.candidates.front().step_us);
  std::vector<std::vector<CostTable>> uneven;
  for (uint64_t i = 0; i < 16; i += 2) {
    uneven.push_back({costs.with_jitter(graph, options.jitter, options.seed, i),
                      costs.with_jitter(graph, options.jitter, options.seed, i + 1)});
  }
  double best_uneven = 0;
  for (size_t i = 0; i < schedules.size(); ++i) {
    if (best.candidates[i].step_us > limit) continue;
    double uneven_us = 0;
    for (const auto& ranks : uneven) uneven_us += simulated_step_us(graph, schedules[i], ranks);
    if (best_uneven > 0 && uneven_us >= best_uneven) continue;
    best_uneven = uneven_us;
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
         "two-batch | 1f1b | two-models (distillation: teacher beside student) | FILE (text form, as `farskip show "
         "--format schedule` prints it)";
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
  } else if (name == "two-models") {
    if (!graph.options().teacher) {
      fail(
          "schedule 'two-models' orders a student beside its teacher; this graph has no teacher (it trains, or "
          "teacher_cache is set): say schedule=paper");
    }
    schedule = two_models_schedule(graph);
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
