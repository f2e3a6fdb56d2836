#pragma once
// State of one step while the executor walks its schedule. Private to the executor.

#include "exec/executor.h"

namespace farskip {

struct Executor::Run {
  Executor& e;
  const StageGraph& graph;
  StepResult result;
  std::vector<at::Tensor> values;
  std::vector<int> readers_left;
  std::vector<std::unique_ptr<Segment>> segments;  // by forward node
  std::map<NodeId, Pending> in_flight;
  std::map<NodeId, std::vector<at::Tensor>> gathered;  ///< by gather in flight: what its rows are made of, empty
  std::vector<int> arrival;                            // per value: when it was written, for the failing control
  int clock = 0;
  bool differentiate;

  Run(Executor& executor, std::vector<Batch> batches)
      : e(executor),
        graph(executor.graph_),
        values(graph.num_values()),
        readers_left(executor.num_readers_),
        segments(graph.num_nodes()),
        arrival(graph.num_values(), 0),
        differentiate(graph.options().scope != Scope::forward) {
    for (Batch& batch : batches) {
      Microbatch made{std::move(batch), std::vector<LayerRouting>(graph.num_layers())};
      if (graph.options().teacher) {
        made.teacher = std::make_shared<Microbatch>();
        made.teacher->batch = made.batch;
        made.teacher->routing.resize(graph.num_layers());
      }
      result.microbatches.push_back(std::move(made));
    }
  }

  Microbatch& state(const Node& node) {
    Microbatch& own = result.microbatches[node.microbatch];
    return node.pass == Pass::teacher ? *own.teacher : own;
  }
  const StageMath& math(const Node& node) const { return node.pass == Pass::teacher ? *e.options_.teacher : e.math_; }

  void write(ValueId id, at::Tensor value) {
    if (e.options_.observe && value.defined()) {
      const Pass pass = graph.node(graph.value(id).producer).pass;
      if (pass == Pass::forward || pass == Pass::teacher) e.options_.observe(graph.value(id), value);
    }
    arrival[id] = clock++;
    if (readers_left[id] > 0) values[id] = std::move(value);
  }

  /// Forgets what this node was the last to read.
  void release_reads(const Node& node) {
    for (const auto* ids : {&node.reads, &node.after}) {
      for (ValueId v : *ids) {
        if (--readers_left[v] == 0) values[v].reset();
      }
    }
  }

  /// The gradient of a forward value: its contributions in the order of the graph, never in place, since two gradients
  /// of a sum are one tensor.
  at::Tensor fan_in(std::vector<ValueId> contributions);
  std::vector<at::Tensor> read(const std::vector<ValueId>& ids) {
    std::vector<at::Tensor> inputs;
    for (ValueId v : ids) inputs.push_back(values[v]);
    return inputs;
  }

  std::vector<at::Tensor> compute(NodeId id, const std::vector<at::Tensor>& inputs, const std::vector<bool>& flags);
  void run_forward(NodeId id);
  void run_again(NodeId id);

  /// Sums pass their gradient on to both operands; the norm's contribution joins that of the view it read.
  void run_view_backward(NodeId id);
  void run_backward(NodeId id);
  void run_wgrad(const Node& node);
  void run(NodeId id);
  void execute(const Op& op);
  void execute();  ///< all operations of the schedule

  // executor_collectives.cc
  void launch(NodeId id);
  void await(NodeId id);
  void finish_timeline();
  void record_collective(NodeId id, CollectiveReport& report, double finished_us);
  void record(NodeId id, SpanKind kind, double begin, double end) {
    if (e.options_.record_spans) events.push_back({id, kind, begin, end});
  }

  struct Event {
    NodeId node;
    SpanKind kind;
    double begin, end;
  };
  std::vector<Event> events;
  std::vector<std::pair<NodeId, double>> awaited;  ///< of result.reports: the collective, and when its await was over
  at::Tensor stats;
};

}  // namespace farskip
