// Recomputation: stages of a layer once more, as nodes of their own that any schedule may place, collectives included.
// What is kept of a layer that is recomputed as a whole are the sums its stages read (its input, and the view of its
// feed-forward) and what the router decided.

#include <algorithm>
#include <map>

#include "layer/stage_graph.h"

namespace farskip {
namespace {

bool is_recomputed(const Recompute& recompute, const Node& node) {
  if (node.layer < recompute.num_layers) {
    // Not the sums, nor what all ranks have told each other of the routes.
    return !only_sums(node.stage) && node.stage != Stage::match && node.stage != Stage::counts &&
           node.stage != Stage::expert_load;
  }
  return recompute.core_attn && node.stage == Stage::attn_core;
}

}  // namespace

void add_recompute(StageGraph& graph, NodeId begin, NodeId end, int layer, ValueId reached) {
  std::map<ValueId, ValueId> again;
  for (NodeId id = begin; id < end; ++id) {
    const Node forward = graph.node(id);
    if (forward.layer != layer || !is_recomputed(graph.options().recompute, forward)) continue;
    Node node;
    node.microbatch = forward.microbatch;
    node.layer = layer;
    node.pass = Pass::recompute;
    node.stage = forward.stage;
    node.group = forward.group;
    node.forward = id;
    const bool view = forward.stage == Stage::view_ff;
    if (view) node.view = forward.view;
    for (ValueId v : view ? std::vector<ValueId>{forward.view} : forward.reads) {
      const auto found = again.find(v);
      node.reads.push_back(found == again.end() ? v : found->second);
    }
    for (ValueId v : view ? std::vector<ValueId>{forward.writes.back()} : forward.writes) {
      again[v] = graph.add_value("again(" + graph.value(v).name + ")", graph.value(v).differentiable);
      node.writes.push_back(again[v]);
    }
    node.after = {reached};
    const NodeId made = graph.add_node(std::move(node));
    graph.nodes_[id].recompute = made;
  }
}

}  // namespace farskip
