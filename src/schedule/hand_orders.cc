#include "schedule/hand_orders.h"

#include <algorithm>
#include <map>
#include <queue>

#include "base/error.h"

namespace farskip {
namespace {

using enum Stage;

/// A place in a hand order: the stage, and how many layers before the slot's own layer it belongs to.
struct Place {
  Stage stage;
  int back = 0;
};

std::vector<Place> forward_slot(Exchange exchange, bool moe) {
  if (!moe) {
    // Nothing to dispatch, so all of attention may come before the previous layer's rows are needed.
    return {{view_attn},    {qkv},     {attn_core}, {attn_out},    {reduce_attn},
            {unpermute, 1}, {view_ff}, {dense},     {reduce_dense}};
  }
  switch (exchange) {
    case Exchange::all_to_all:
      return {{view_attn}, {qkv},         {unpermute, 1}, {view_ff},  {route},   {counts},  {permute},
              {dispatch},  {expert_load}, {attn_core},    {attn_out}, {experts}, {combine}, {shared}};
    case Exchange::gather:
      return {{view_attn}, {qkv},    {view_ff}, {route},   {gather},    {attn_core},
              {attn_out},  {shared}, {permute}, {experts}, {unpermute}, {reduce_scatter}};
    case Exchange::all_reduce:
      return {{view_attn},   {qkv},           {attn_core}, {attn_out}, {view_ff},   {route},        {shared},
              {reduce_attn}, {reduce_shared}, {permute},   {experts},  {unpermute}, {reduce_routed}};
  }
  return {};
}

std::vector<Stage> backward_slot() {
  return {unpermute, combine, shared,  dense, attn_out, attn_core, experts,
          dispatch,  qkv,     permute, route, view_ff,  view_attn};
}

/// Slots of one pass of one microbatch are numbered from its first; a key orders nodes by slot, then by place.
class HandKeys {
 public:
  explicit HandKeys(const StageGraph& graph) : graph_(graph) {
    const auto exchange = graph.options().layout.exchange(graph.options().phase);
    for (bool moe : {false, true}) {
      const auto places = forward_slot(exchange, moe);
      for (int i = 0; i < static_cast<int>(places.size()); ++i) forward_[moe][places[i].stage] = {i, places[i].back};
    }
    const auto stages = backward_slot();
    for (int i = 0; i < static_cast<int>(stages.size()); ++i) backward_[stages[i]] = i;
    moe_.assign(graph.num_layers(), false);
    for (const Node& node : graph.nodes()) {
      if (node.stage == route) moe_[node.layer] = true;
    }
  }

  /// (microbatch and pass, slot, place, stage within place): smaller comes first. A microbatch's passes are its
  /// teacher's, forward and backward.
  std::vector<int> key(NodeId id) const {
    const Node& n = graph_.node(id);
    const int last = graph_.options().num_microbatches - 1;
    if (n.pass == Pass::forward || n.pass == Pass::teacher) {
      const auto [slot, place] = forward_place(n);
      return {3 * n.microbatch + (n.pass == Pass::forward), slot, place, 0};
    }
    if (is_gather(n.stage)) return {1, n.layer - gather_ahead, -1, id};
    if (n.pass == Pass::step) {
      // A layer's reduction starts right behind its backward slot; statistics and optimizer come last.
      return {3 * last + 2, is_gradient_reduction(n.stage) ? graph_.num_layers() - n.layer : graph_.num_layers() + 2,
              1000, id};
    }
    if (n.pass == Pass::recompute) {  // behind the backward pass of the layer above, in the forward order
      return {3 * n.microbatch + 2, graph_.num_layers() - n.layer - 1, 600 + forward_place(n).second, id};
    }
    const auto place = backward_.find(n.stage);
    return {3 * n.microbatch + 2, graph_.num_layers() - n.layer, place == backward_.end() ? 500 : place->second,
            n.stage == head || n.stage == loss || n.stage == view_head ? id : n.pass == Pass::wgrad};
  }

 private:
  std::pair<int, int> forward_place(const Node& n) const {
    if (n.layer < 0 || n.layer >= graph_.num_layers()) {
      return {n.layer, 100 + static_cast<int>(n.stage)};
    }
    auto find = [&](int slot) -> std::pair<int, int> {
      const bool moe = slot < graph_.num_layers() ? moe_[slot] : true;
      const auto found = forward_[moe].find(n.stage);
      return found == forward_[moe].end() || found->second.second != slot - n.layer
                 ? std::pair{-1, -1}
                 : std::pair{slot, found->second.first};
    };
    const auto own = find(n.layer);
    return own.first >= 0 ? own : find(n.layer + 1);
  }

  const StageGraph& graph_;
  std::map<Stage, std::pair<int, int>> forward_[2];  // [moe][stage] = (place, layers back)
  std::map<Stage, int> backward_;
  std::vector<bool> moe_;
};

/// Topological order that always takes the ready node with the smallest rank in `wanted`.
std::vector<NodeId> nearest_valid_order(const StageGraph& graph, const std::vector<NodeId>& wanted) {
  const int n = graph.num_nodes();
  std::vector<int> rank(n), missing(n);
  for (int i = 0; i < n; ++i) rank[wanted[i]] = i;
  std::vector<std::vector<NodeId>> successors(n);
  std::priority_queue<int, std::vector<int>, std::greater<>> ready;
  for (NodeId id = 0; id < n; ++id) {
    const auto needed = graph.predecessors(id);
    missing[id] = static_cast<int>(needed.size());
    for (NodeId p : needed) successors[p].push_back(id);
    if (needed.empty()) ready.push(rank[id]);
  }
  std::vector<NodeId> order;
  while (!ready.empty()) {
    order.push_back(wanted[ready.top()]);
    ready.pop();
    for (NodeId s : successors[order.back()]) {
      if (--missing[s] == 0) ready.push(rank[s]);
    }
  }
  FARSKIP_CHECK(static_cast<int>(order.size()) == n, "the graph has a circle");
  return order;
}

/// Places streams side by side. In its turn a stream goes on until its next node needs a collective that it launched in
/// this very turn (or something of another stream); then the next stream takes over and runs under that collective.
/// Counts are a few bytes: their stream waits for them, or both streams would stand before their dispatch at once.
void append_side_by_side(const StageGraph& graph, const std::vector<std::vector<NodeId>>& streams,
                         std::vector<NodeId>& order, std::vector<bool>& placed) {
  std::vector<size_t> next(streams.size(), 0);
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t s = 0; s < streams.size(); ++s) {
      std::vector<bool> in_flight(graph.num_nodes(), false);
      for (; next[s] < streams[s].size(); ++next[s], moved = true) {
        const NodeId id = streams[s][next[s]];
        const auto needed = graph.predecessors(id);
        if (std::any_of(needed.begin(), needed.end(), [&](NodeId p) { return !placed[p] || in_flight[p]; })) break;
        order.push_back(id);
        placed[id] = true;
        in_flight[id] = graph.node(id).is_collective() && !row(graph.node(id).stage).host_sync;
      }
    }
  }
  for (size_t s = 0; s < streams.size(); ++s)
    FARSKIP_CHECK(next[s] == streams[s].size(), "streams wait for each other");
}

/// A part of a microbatch's work: `ahead` is everything before its backward pass.
enum class Part { teacher, student, ahead, back };

bool contains(Part part, Pass pass) {
  switch (part) {
    case Part::teacher:
      return pass == Pass::teacher;
    case Part::student:
      return pass == Pass::forward;
    case Part::ahead:
      return pass == Pass::teacher || pass == Pass::forward;
    case Part::back:
      return pass != Pass::teacher && pass != Pass::forward;
  }
  return false;
}

/// The paper's order of a part of one microbatch; weights are gathered in the first forward pass.
std::vector<NodeId> stream_of(const StageGraph& graph, const std::vector<NodeId>& paper, int microbatch, Part part) {
  std::vector<NodeId> stream;
  for (NodeId id : paper) {
    const Node& n = graph.node(id);
    const bool gathers = contains(part, Pass::forward) && microbatch == 0 && is_gather(n.stage);
    if (gathers || (n.microbatch == microbatch && contains(part, n.pass))) stream.push_back(id);
  }
  return stream;
}

/// Parts that run side by side.
using Beside = std::vector<std::pair<int, Part>>;

Schedule side_by_side(const StageGraph& graph, const std::vector<Beside>& phases, std::string name) {
  const auto paper = order_of(paper_schedule(graph));
  std::vector<NodeId> order;
  std::vector<bool> placed(graph.num_nodes(), false);
  for (const auto& phase : phases) {
    std::vector<std::vector<NodeId>> streams;
    for (const auto& [microbatch, part] : phase) streams.push_back(stream_of(graph, paper, microbatch, part));
    append_side_by_side(graph, streams, order, placed);
  }
  for (NodeId id : paper) {
    if (!placed[id]) order.push_back(id);  // gradient reduction, statistics, optimizer
  }
  return overlapped_schedule(graph, order, std::move(name));
}

}  // namespace

Schedule paper_schedule(const StageGraph& graph) {
  const HandKeys keys(graph);
  std::vector<std::pair<std::vector<int>, NodeId>> keyed;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) keyed.emplace_back(keys.key(id), id);
  std::sort(keyed.begin(), keyed.end());
  std::vector<NodeId> wanted;
  for (const auto& [key, id] : keyed) wanted.push_back(id);
  return overlapped_schedule(graph, nearest_valid_order(graph, wanted), "paper");
}

Schedule two_batch_schedule(const StageGraph& graph) {
  std::vector<Beside> phases;
  const int n = graph.options().num_microbatches;
  for (int m = 0; m < n; m += 2) {
    for (Part part : {Part::ahead, Part::back}) {
      phases.push_back({{m, part}});
      if (m + 1 < n) phases.back().push_back({m + 1, part});
    }
  }
  return side_by_side(graph, phases, "two-batch");
}

Schedule one_forward_one_backward_schedule(const StageGraph& graph) {
  std::vector<Beside> phases = {{{0, Part::ahead}}};
  const int n = graph.options().num_microbatches;
  for (int m = 0; m < n; ++m) {
    phases.push_back({{m, Part::back}});
    if (m + 1 < n) phases.back().push_back({m + 1, Part::ahead});
  }
  return side_by_side(graph, phases, "1f1b");
}

Schedule two_models_schedule(const StageGraph& graph) {
  FARSKIP_CHECK(graph.options().teacher.has_value(), "a graph without a teacher has one model");
  std::vector<Beside> phases;
  for (int m = 0; m < graph.options().num_microbatches; ++m) {
    // The teacher first: the student's gates and losses may read what it wrote.
    phases.push_back({{m, Part::teacher}, {m, Part::student}});
    phases.push_back({{m, Part::back}});
  }
  return side_by_side(graph, phases, "two-models");
}

}  // namespace farskip
