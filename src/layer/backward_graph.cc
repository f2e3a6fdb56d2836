// The backward pass: the forward graph transposed. A backward node reads the gradient contributions of what its forward
// node wrote and writes one contribution for each differentiable thing it read; dispatch and combine swap by
// themselves. Weight gradients are nodes of their own, chained in microbatch order, that nobody awaits before the
// optimizer.

#include "layer/stage_graph.h"

namespace farskip {
namespace {

/// Where the accumulated gradient of a stage's weights is kept; tied embeddings share the head's.
size_t accumulator(const StageGraph& graph, const ModelConfig& model, int layer, Stage stage) {
  if (model.tie_word_embeddings && stage == Stage::embed) {
    layer = graph.num_layers();
    stage = Stage::head;
  }
  return static_cast<size_t>(layer + 1) * num_stages + static_cast<size_t>(stage);
}

bool has_gradient(const StageGraph& graph, const Node& node, const std::vector<std::vector<ValueId>>& grads) {
  if (node.stage == Stage::loss) return true;  // the root: d loss / d loss = 1
  for (ValueId v : node.writes) {
    if (graph.value(v).differentiable && !grads[v].empty()) return true;
  }
  return false;
}

}  // namespace

void add_backward(StageGraph& graph, const ModelConfig& model, NodeId begin, NodeId end,
                  std::vector<ValueId>& last_accumulated) {
  // Contributions per value. Nodes are visited in reverse, so each list is in reverse declaration order of the readers.
  std::vector<std::vector<ValueId>> grads(graph.num_values());
  ValueId reached = no_value;  // a gradient of the layer above the one whose turn it is
  int layer = graph.num_layers();
  for (NodeId id = end - 1; id >= begin; --id) {
    const Node forward = graph.node(id);
    const bool in_layer = forward.layer >= 0 && forward.layer < graph.num_layers();
    const std::string reader =
        fmt::format("{}{}", in_layer ? fmt::format("l{}.", forward.layer) : "", to_string(forward.stage));
    if (!has_gradient(graph, forward, grads)) continue;
    if (in_layer && forward.layer != layer) {
      layer = forward.layer;
      add_recompute(graph, begin, end, layer, reached);
      reached = no_value;
    }
    Node backward;
    backward.microbatch = forward.microbatch;
    backward.layer = forward.layer;
    backward.pass = Pass::backward;
    backward.stage = forward.stage;
    backward.group = forward.group;
    backward.forward = id;
    for (ValueId v : forward.writes) {
      backward.output_grads.push_back(grads[v]);
      backward.reads.insert(backward.reads.end(), grads[v].begin(), grads[v].end());
    }
    for (ValueId v : forward.reads) {
      ValueId contribution = no_value;
      if (graph.value(v).differentiable) {
        contribution = graph.add_value(fmt::format("d({})/{}", graph.value(v).name, reader), true);
        grads[v].push_back(contribution);
        backward.writes.push_back(contribution);
        if (reached == no_value) reached = contribution;
      }
      backward.input_grads.push_back(contribution);
    }
    if (forward.stage == Stage::route) {
      const NodeId load = graph.find(forward.microbatch, forward.layer, Pass::forward, Stage::expert_load);
      if (load != no_node) backward.reads.push_back(graph.node(load).writes[0]);
    }
    const bool has_weights = row(forward.stage).has_weights;
    const std::string name = graph.name(id);
    ValueId left_over = no_value;
    if (has_weights) {
      left_over = graph.add_value("left_over(" + name + ")", false);
      backward.writes.push_back(left_over);
    }
    graph.add_node(std::move(backward));
    if (!has_weights) continue;

    Node wgrad;
    wgrad.microbatch = forward.microbatch;
    wgrad.layer = forward.layer;
    wgrad.pass = Pass::wgrad;
    wgrad.stage = forward.stage;
    wgrad.forward = id;
    wgrad.reads.push_back(left_over);
    ValueId& accumulated = last_accumulated[accumulator(graph, model, forward.layer, forward.stage)];
    if (accumulated != no_value) wgrad.reads.push_back(accumulated);
    accumulated = graph.add_value("accumulated(" + name + ")", false);
    wgrad.writes.push_back(accumulated);
    graph.add_node(std::move(wgrad));
  }
}

void add_gathers(StageGraph& graph, const ModelConfig& model) {
  const Layout& layout = graph.options().layout;
  auto add = [&](int layer, Stage stage, Group group, const char* name) {
    Node node;
    node.layer = layer;
    node.pass = Pass::step;
    node.stage = stage;
    node.group = group;
    node.writes = {graph.add_value(fmt::format("{}.{}", name, layer), false)};
    return graph.node(graph.add_node(std::move(node))).writes[0];
  };
  const int head = graph.num_layers();
  const bool tied = model.tie_word_embeddings;
  for (int k = -1; k <= head; ++k) {
    const int layer = tied && k == -1 ? head : k;
    if (layout.world() > 1 && !(tied && k == head)) {
      const ValueId weights = add(layer, Stage::param_gather, Group::world, "gathered");
      graph.gathered_[{layer, false}] = graph.gathered_[{k, false}] = weights;
    }
    if (layout.dp > 1 && k >= 0 && k < head && model.is_moe(k))
      graph.gathered_[{k, true}] = add(k, Stage::param_gather_experts, Group::expert_data, "gathered_experts");
  }
}

void add_step(StageGraph& graph, const ModelConfig& model, const std::vector<ValueId>& last_accumulated) {
  const Layout& layout = graph.options().layout;
  std::vector<ValueId> reduced;
  auto add = [&](int layer, Stage stage, Group group, std::vector<ValueId> reads, const char* name) {
    Node node;
    node.layer = layer;
    node.pass = Pass::step;
    node.stage = stage;
    node.group = group;
    node.reads = std::move(reads);
    node.writes = {graph.add_value(layer < -1 ? name : fmt::format("{}.{}", name, layer), false)};
    return graph.node(graph.add_node(std::move(node))).writes[0];
  };
  for (int layer = graph.num_layers(); layer >= -1; --layer) {  // the order in which gradients become ready
    std::vector<ValueId> replicated, experts;
    for (int stage = 0; stage < num_stages; ++stage) {
      const ValueId accumulated = last_accumulated[static_cast<size_t>(layer + 1) * num_stages + stage];
      if (accumulated == no_value) continue;
      (static_cast<Stage>(stage) == Stage::experts ? experts : replicated).push_back(accumulated);
    }
    auto reduce = [&](std::vector<ValueId>& gradients, int ranks, Stage stage, Group group, const char* name) {
      if (gradients.empty()) return;
      if (ranks > 1) gradients = {add(layer, stage, group, std::move(gradients), name)};
      reduced.insert(reduced.end(), gradients.begin(), gradients.end());
    };
    reduce(replicated, layout.ep * layout.dp, Stage::grad_reduce, Group::world, "reduced");
    reduce(experts, layout.dp, Stage::grad_reduce_experts, Group::expert_data, "reduced_experts");
  }
  std::vector<ValueId> optimizer_reads = reduced;
  for (ValueId v = 0, n = graph.num_values(); v < n; ++v) {
    const NodeId producer = graph.value(v).producer;
    if (graph.node(producer).stage == Stage::loss && graph.node(producer).pass == Pass::forward) reduced.push_back(v);
  }
  optimizer_reads.push_back(add(-2, Stage::stats, Group::world, reduced, "stats"));
  add(-2, Stage::optimizer, Group::none, optimizer_reads, "updated");
}

}  // namespace farskip
