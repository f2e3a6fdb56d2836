#include "layer/stage_graph.h"

#include <algorithm>

#include "base/error.h"

namespace farskip {

std::string StageGraph::name(NodeId id) const {
  const Node& n = nodes_[id];
  std::string text;
  if (n.microbatch >= 0) text += fmt::format("mb{}.", n.microbatch);
  if (n.layer >= 0 && n.layer < num_layers_) text += fmt::format("l{}.", n.layer);
  // What reduces and gathers the embedding and the head is told apart by what it belongs to.
  const bool of_weights = n.pass == Pass::step && (n.stage == Stage::grad_reduce || n.stage == Stage::param_gather);
  if (of_weights && n.layer < 0) text += "embed.";
  if (of_weights && n.layer == num_layers_) text += "head.";
  return fmt::format("{}{}.{}", text, to_string(n.pass), to_string(n.stage));
}

NodeId StageGraph::find(const std::string& wanted) const {
  for (NodeId id = 0; id < num_nodes(); ++id) {
    if (name(id) == wanted) return id;
  }
  fail("the graph has no node '{}' (it has {} nodes, the first is '{}')", wanted, num_nodes(),
       num_nodes() > 0 ? name(0) : "");
}

NodeId StageGraph::find(int microbatch, int layer, Pass pass, Stage stage) const {
  for (NodeId id = 0; id < num_nodes(); ++id) {
    const Node& n = nodes_[id];
    if (n.microbatch == microbatch && n.layer == layer && n.pass == pass && n.stage == stage) return id;
  }
  return no_node;
}

std::vector<NodeId> StageGraph::predecessors(NodeId id) const {
  const Node& n = nodes_[id];
  std::vector<NodeId> result;
  for (ValueId v : n.reads) result.push_back(values_[v].producer);
  if (n.forward != no_node) {
    result.push_back(n.forward);
    if (n.pass != Pass::recompute) result.push_back(saved_by(n));
  }
  for (ValueId v : n.after) result.push_back(values_[v].producer);
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

ValueId StageGraph::add_value(std::string name, bool differentiable) {
  values_.push_back({std::move(name), no_node, {}, differentiable});
  return num_values() - 1;
}

ValueId StageGraph::gathered(int layer, Stage stage) const {
  const auto found = gathered_.find({layer, stage == Stage::experts});
  return found != gathered_.end() && row(stage).has_weights ? found->second : no_value;
}

NodeId StageGraph::saved_by(const Node& node) const {
  const NodeId again = nodes_[node.forward].recompute;
  return again == no_node ? node.forward : again;
}

bool StageGraph::is_all_reduce(NodeId id) const {
  switch (nodes_[id].stage) {
    case Stage::grad_reduce:
    case Stage::grad_reduce_experts:
      return !options_.shard_optimizer;
    case Stage::reduce_attn:
    case Stage::reduce_shared:
    case Stage::reduce_routed:
    case Stage::reduce_dense:
    case Stage::stats:
    case Stage::expert_load:
      return true;
    default:
      return false;
  }
}

NodeId StageGraph::add_node(Node node) {
  const NodeId id = num_nodes();
  if (node.pass == Pass::forward) {
    if (const ValueId weights = gathered(node.layer, node.stage); weights != no_value) node.after.push_back(weights);
  }
  for (ValueId v : node.after) values_[v].readers.push_back(id);
  for (ValueId v : node.reads) {
    FARSKIP_CHECK(values_[v].producer != no_node, values_[v].name + " is read before it is written");
    values_[v].readers.push_back(id);
  }
  for (ValueId v : node.writes) {
    FARSKIP_CHECK(values_[v].producer == no_node, values_[v].name + " is written twice");
    values_[v].producer = id;
    if (node.pass == Pass::teacher) values_[v].differentiable = false;
  }
  nodes_.push_back(std::move(node));
  return id;
}

void StageGraph::wait_for(NodeId id, ValueId value) {
  nodes_[id].after.push_back(value);
  values_[value].readers.push_back(id);
}

StageGraph build_graph(const ModelConfig& model, const Connectivity& connectivity, const GraphOptions& options) {
  options.layout.check(model, options.phase);
  if (connectivity.num_layers() != model.num_layers()) {
    fail("the connectivity describes {} layers, the model has {}", connectivity.num_layers(), model.num_layers());
  }
  if (options.teacher && options.teacher->num_layers() != model.num_layers()) {
    fail("the teacher's connectivity describes {} layers, the model has {}", options.teacher->num_layers(),
         model.num_layers());
  }
  if (options.num_microbatches < 1) fail("{} microbatches; at least 1 is needed", options.num_microbatches);
  StageGraph graph;
  graph.options_ = options;
  if (options.phase != Phase::train) graph.options_.scope = Scope::forward;
  graph.num_layers_ = static_cast<int>(model.num_layers());
  if (graph.options_.shard_optimizer && graph.options_.scope == Scope::step) add_gathers(graph, model);
  std::vector<ValueId> last_accumulated((graph.num_layers_ + 2) * num_stages, no_value);
  for (int microbatch = 0; microbatch < options.num_microbatches; ++microbatch) {
    const TeacherValues teacher = options.teacher ? add_teacher(graph, model, microbatch) : TeacherValues{};
    const NodeId begin = add_forward(graph, model, connectivity, microbatch, teacher);
    if (graph.options_.scope != Scope::forward) {
      add_backward(graph, model, begin, graph.num_nodes(), last_accumulated);
    }
  }
  if (graph.options_.scope == Scope::step) add_step(graph, model, last_accumulated);
  return graph;
}

}  // namespace farskip
