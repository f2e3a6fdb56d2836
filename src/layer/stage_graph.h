#pragma once
// The stage graph: which stages a step has, on which lane, reading and writing which values. It is computed from
// connectivity, model shape and layout, and everything else is derived from it: execution, the backward pass, the
// simulation and the drawings. Building it says the layer once (layer/forward_graph.cc); the backward pass is its
// transposition (layer/backward_graph.cc).

#include <fmt/format.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "layer/connectivity.h"
#include "layer/layout.h"
#include "layer/stage.h"

namespace farskip {

using NodeId = int;
using ValueId = int;
inline constexpr int no_value = -1;
inline constexpr int no_node = -1;

/// Something a node writes once: an activation, a gradient contribution, saved state, an accumulated weight gradient.
struct Value {
  std::string name;
  NodeId producer = no_node;
  std::vector<NodeId> readers;
  bool differentiable = false;
};

/// out = left + right. Sums are data because their order is part of the contract on bits.
struct Sum {
  ValueId out, left, right;
};

/// A stage of one layer, microbatch and pass.
struct Node {
  int microbatch = -1;  ///< -1: once a step
  int layer = -1;       ///< -1 and num_layers: before the first and after the last layer
  Pass pass = Pass::forward;
  Stage stage = Stage::embed;
  Group group = Group::none;   ///< communicator of a collective
  std::vector<ValueId> reads;  ///< in the order the stage's kernel takes them
  std::vector<ValueId> writes;
  std::vector<Sum> sums;       ///< view stages: additions, in order
  ValueId view = no_value;     ///< view stages: the value that is normed
  NodeId forward = no_node;    ///< backward, wgrad, recompute: the forward node it belongs to
  NodeId recompute = no_node;  ///< forward: the node that does it again, so that this one saves nothing
  std::vector<ValueId> after;  ///< what must be there although it is no input: gathered weights
  /// backward: for each write of the forward node its gradient contributions, in the order they are added (reverse
  /// declaration order of the readers: the order of whole-graph autograd)
  std::vector<std::vector<ValueId>> output_grads;
  /// backward: for each read of the forward node the contribution written here, or no_value
  std::vector<ValueId> input_grads;

  Lane lane() const { return row(stage).lane; }
  bool is_collective() const { return lane() == Lane::comm; }
};

/// What a graph covers.
enum class Scope {
  forward,    ///< up to the loss (train) or the sampled token (prefill, decode)
  gradients,  ///< and the backward pass with weight gradients
  step,       ///< and gradient reduction, statistics and the optimizer
};

/// What is computed a second time, behind the backward pass of the layer above, instead of being kept. No bit changes.
struct Recompute {
  int num_layers = 0;      ///< the first so many layers keep what enters them, their sums and their routes
  bool core_attn = false;  ///< the other layers recompute their core attention
  // Within a stage, for gradients of weights:
  bool layernorm = false;  ///< all layers recompute the norms before products
  bool moe_act = false;    ///< and the activations of routed and shared experts
  bool operator==(const Recompute&) const = default;
};

struct GraphOptions {
  Phase phase = Phase::train;
  Layout layout;
  int num_microbatches = 1;
  Scope scope = Scope::step;
  /// Masters and optimizer state are shared out over the replicas: gradients are reduced to the rank that keeps them
  /// (the reductions are reduce-scatters), and the step begins with a gather of each layer's weights.
  bool shard_optimizer = false;
  Recompute recompute = {};
  /// For the global auxiliary loss, where gradients are computed: each gate's backward reads the load of its experts on
  /// all ranks, summed over the microbatches so far (Stage::expert_load).
  bool expert_load = false;
  /// Distillation: each microbatch's forward pass also of a teacher, a model of the same shape with this connectivity,
  /// as nodes of Pass::teacher. The loss reads its logits, so the two passes may be interleaved at will.
  std::optional<Connectivity> teacher = std::nullopt;
  /// The whole stream before each layer but the first, and before the head, is compared with the teacher's: the loss
  /// reads what the stages `match` write. REQUIRES: teacher.
  bool match_streams = false;
  /// The student's gates read what the teacher's have decided. REQUIRES: teacher.
  bool match_routes = false;
};

class StageGraph {
 public:
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Value>& values() const { return values_; }
  const Node& node(NodeId id) const { return nodes_[id]; }
  const Value& value(ValueId id) const { return values_[id]; }
  int num_nodes() const { return static_cast<int>(nodes_.size()); }
  int num_values() const { return static_cast<int>(values_.size()); }
  int num_layers() const { return num_layers_; }
  const GraphOptions& options() const { return options_; }

  /// "mb0.l3.fwd.dispatch", "mb0.fwd.embed", "l3.step.grad_reduce", "step.optimizer".
  std::string name(NodeId id) const;
  /// The node of that name; throws Error where there is none.
  NodeId find(const std::string& name) const;
  /// no_node where there is none.
  NodeId find(int microbatch, int layer, Pass pass, Stage stage) const;

  /// Nodes that must be over before this one: whose values it reads, whose saved state it uses; each once, ascending.
  std::vector<NodeId> predecessors(NodeId id) const;

  /// Declares a value that nobody has written yet, and a node that writes and reads values. Used by the builders.
  ValueId add_value(std::string name, bool differentiable);
  NodeId add_node(Node node);
  /// Makes a node wait for a value that it does not read.
  void wait_for(NodeId id, ValueId value);
  /// What says that the weights of a forward stage are gathered; no_value where this rank has them anyway.
  ValueId gathered(int layer, Stage stage) const;
  /// The node whose state a backward or wgrad node uses: its forward node or what does that again.
  NodeId saved_by(const Node& node) const;
  /// Whether a collective leaves its sum on every rank: two exchanges of its bytes, all others are one.
  bool is_all_reduce(NodeId id) const;

 private:
  friend StageGraph build_graph(const ModelConfig&, const Connectivity&, const GraphOptions&);
  friend void add_gathers(StageGraph&, const ModelConfig&);
  friend void add_recompute(StageGraph&, NodeId, NodeId, int, ValueId);
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  GraphOptions options_;
  int num_layers_ = 0;
  std::map<std::pair<int, bool>, ValueId> gathered_;  ///< by layer, of experts or not
};

/// Builds the graph of one step. Nodes stand in declaration order, which is a valid order of execution: each
/// microbatch's forward pass, its backward pass in reverse, then gradient reduction, statistics and optimizer. Throws
/// Error for layouts the model cannot take (Layout::check).
StageGraph build_graph(const ModelConfig& model, const Connectivity& connectivity, const GraphOptions& options);

// The two halves, called by build_graph for each microbatch.

/// Appends the gathers of weights that are shared out, and makes every forward stage that uses them wait for them.
void add_gathers(StageGraph& graph, const ModelConfig& model);
/// What a student reads of its teacher's forward pass.
struct TeacherValues {
  ValueId logits = no_value;
  std::vector<ValueId> streams = {};  ///< the whole stream before layer k + 1; only with match_streams
};
/// Appends the teacher's forward nodes of one microbatch.
TeacherValues add_teacher(StageGraph& graph, const ModelConfig& model, int microbatch);
/// Appends the forward nodes of one microbatch, whose loss is taken against `teacher` where it has logits. Returns the
/// id of the first.
NodeId add_forward(StageGraph& graph, const ModelConfig& model, const Connectivity& connectivity, int microbatch,
                   const TeacherValues& teacher);
/// Appends the transposition of nodes [begin, end) of one microbatch, starting from its loss. `last_accumulated` holds,
/// per (layer + 1) * num_stages + stage, the value of the weight gradient accumulated so far, or no_value.
void add_backward(StageGraph& graph, const ModelConfig& model, NodeId begin, NodeId end,
                  std::vector<ValueId>& last_accumulated);
/// Appends what `layer` recomputes of the forward nodes [begin, end) of one microbatch. None of it begins before
/// `reached`, a value of the backward pass, is there.
void add_recompute(StageGraph& graph, NodeId begin, NodeId end, int layer, ValueId reached);
/// Appends gradient reduction, statistics and optimizer.
void add_step(StageGraph& graph, const ModelConfig& model, const std::vector<ValueId>& last_accumulated);

}  // namespace farskip
