#include "exec/executor.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "schedule/validate.h"
#include "sim/simulate.h"
#include "transport/clock.h"

namespace farskip {

Communicators Communicators::make(World& world, const Layout& layout) {
  if (layout.world() != world.size()) {
    fail("layout {} needs {} ranks, {} are running", layout.to_string(), layout.world(), world.size());
  }
  std::vector<int> experts, same_experts, all;
  for (int r = 0; r < world.size(); ++r) {
    if (r / layout.ep == world.rank() / layout.ep) experts.push_back(r);
    if (r % layout.ep == world.rank() % layout.ep) same_experts.push_back(r);
    all.push_back(r);
  }
  return {world.group(experts, to_string(Group::expert)), world.group(same_experts, to_string(Group::expert_data)),
          world.group(all, to_string(Group::world))};
}

Transport& Communicators::of(Group group) const {
  switch (group) {
    case Group::expert:
      return *expert;
    case Group::expert_data:
      return *expert_data;
    case Group::world:
      return *world;
    case Group::none:
      break;
  }
  FARSKIP_CHECK(false, "a collective without a communicator");
  return *world;
}

namespace {

/// Parameters whose gradients a reduction adds up over ranks.
std::vector<int> reduced_parameters(const ParameterTable& table, const Node& node) {
  const bool experts = node.stage == Stage::grad_reduce_experts;
  std::vector<int> ids;
  for (const StageRow& stage : stage_table()) {
    if ((stage.stage == Stage::experts) != experts) continue;
    for (int id : table.of_stage(node.layer, stage.stage)) ids.push_back(id);
  }
  return ids;
}

}  // namespace

struct Executor::Run {
  Executor& e;
  const StageGraph& graph;
  StepResult result;
  std::vector<at::Tensor> values;
  std::vector<int> readers_left;
  std::vector<std::unique_ptr<Segment>> segments;  // by forward node
  std::map<NodeId, Pending> in_flight;
  std::vector<int> arrival;  // per value: when it was written, for the failing control
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
      result.microbatches.push_back({std::move(batch), std::vector<LayerRouting>(graph.num_layers())});
    }
  }

  Microbatch& state(const Node& node) { return result.microbatches[node.microbatch]; }

  void write(ValueId id, at::Tensor value) {
    if (e.options_.observe && graph.node(graph.value(id).producer).pass == Pass::forward && value.defined()) {
      e.options_.observe(graph.value(id), value);
    }
    arrival[id] = clock++;
    if (readers_left[id] > 0) values[id] = std::move(value);
  }

  /// Forgets what this node was the last to read.
  void release_reads(const Node& node) {
    for (ValueId v : node.reads) {
      if (--readers_left[v] == 0) values[v].reset();
    }
  }

  /// The gradient of a forward value: its contributions in the order of the graph, never in place, since two gradients
  /// of a sum are one tensor.
  at::Tensor fan_in(std::vector<ValueId> contributions) {
    if (e.options_.fan_in_by_arrival) {
      std::sort(contributions.begin(), contributions.end(),
                [&](ValueId a, ValueId b) { return arrival[a] < arrival[b]; });
    }
    at::Tensor sum;
    for (ValueId v : contributions) {
      if (values[v].defined()) sum = sum.defined() ? sum + values[v] : values[v];
    }
    return sum;
  }

  std::vector<at::Tensor> read(const std::vector<ValueId>& ids) {
    std::vector<at::Tensor> inputs;
    for (ValueId v : ids) inputs.push_back(values[v]);
    return inputs;
  }

  std::vector<at::Tensor> compute(NodeId id, const std::vector<at::Tensor>& inputs, const std::vector<bool>& flags) {
    const Node& node = graph.node(id);
    if (!differentiate) {
      at::NoGradGuard no_grad;
      return e.math_.forward(node, inputs, state(node), nullptr);
    }
    segments[id] = std::make_unique<Segment>();
    return segments[id]->run(inputs, flags, [&](const std::vector<at::Tensor>& cut, nn::WeightGradQueue* queue) {
      return e.math_.forward(node, cut, state(node), queue);
    });
  }

  void run_forward(NodeId id) {
    const Node& node = graph.node(id);
    std::map<ValueId, at::Tensor> sums;
    auto operand = [&](ValueId v) { return sums.count(v) ? sums[v] : values[v]; };
    for (const Sum& sum : node.sums) write(sum.out, sums[sum.out] = operand(sum.left) + operand(sum.right));
    if (node.stage == Stage::view_attn || node.stage == Stage::view_head) return;
    std::vector<at::Tensor> outputs;
    if (node.stage == Stage::view_ff) {
      outputs = compute(id, {operand(node.view)}, {true});
    } else {
      std::vector<bool> flags;
      for (ValueId v : node.reads) flags.push_back(graph.value(v).differentiable);
      outputs = compute(id, read(node.reads), flags);
    }
    if (node.stage == Stage::loss) result.losses[node.microbatch] = outputs[0];
    for (size_t i = 0; i < outputs.size(); ++i) write(node.writes[node.sums.size() + i], std::move(outputs[i]));
  }

  /// Sums pass their gradient on to both operands; the norm's contribution joins that of the view it read.
  void run_view_backward(NodeId id) {
    const Node& node = graph.node(id);
    const Node& forward = graph.node(node.forward);
    std::map<ValueId, at::Tensor> grads;
    auto add = [&](ValueId v, const at::Tensor& g) {
      if (g.defined()) grads[v] = grads[v].defined() ? grads[v] + g : g;
    };
    for (size_t i = 0; i < forward.writes.size(); ++i) grads[forward.writes[i]] = fan_in(node.output_grads[i]);
    if (forward.stage == Stage::view_ff) {
      add(forward.view, segments[node.forward]->backward({grads[forward.writes.back()]})[0]);
    }
    for (auto sum = forward.sums.rbegin(); sum != forward.sums.rend(); ++sum) {
      add(sum->left, grads[sum->out]);
      add(sum->right, grads[sum->out]);
    }
    for (size_t i = 0; i < forward.reads.size(); ++i) {
      if (node.input_grads[i] != no_value) write(node.input_grads[i], grads[forward.reads[i]]);
    }
  }

  void run_backward(NodeId id) {
    const Node& node = graph.node(id);
    const Stage stage = node.stage;
    if (stage == Stage::view_attn || stage == Stage::view_ff || stage == Stage::view_head) return run_view_backward(id);
    std::vector<at::Tensor> output_grads;
    if (stage == Stage::loss) {
      output_grads.push_back(at::ones({}, result.losses[node.microbatch].options()));
    } else {
      for (const auto& contributions : node.output_grads) output_grads.push_back(fan_in(contributions));
    }
    auto input_grads = segments[node.forward]->backward(output_grads);
    for (size_t i = 0; i < node.input_grads.size(); ++i) {
      if (node.input_grads[i] != no_value) write(node.input_grads[i], std::move(input_grads[i]));
    }
    if (!row(stage).has_weights) segments[node.forward].reset();
  }

  void run_wgrad(const Node& node) {
    at::NoGradGuard no_grad;
    segments[node.forward]->queue().drain(
        [&](int parameter, const at::Tensor& gradient) { e.parameters_.main_grad(parameter).add_(gradient); });
    segments[node.forward].reset();
  }

  void run(NodeId id) {
    const Node& node = graph.node(id);
    switch (node.pass) {
      case Pass::forward:
        run_forward(id);
        break;
      case Pass::backward:
        run_backward(id);
        break;
      case Pass::wgrad:
        run_wgrad(node);
        break;
      case Pass::step: {
        FARSKIP_CHECK(node.stage == Stage::optimizer);
        e.hooks_->optimize(stats);
        break;
      }
    }
    release_reads(node);
  }

  void launch(NodeId id) {
    at::NoGradGuard no_grad;
    const Node& node = graph.node(id);
    Transport& transport = e.communicators_.of(node.group);
    const std::string& name = e.names_[id];
    switch (node.stage) {
      case Stage::counts: {
        const auto& counts = state(node).routing[node.layer].plan.send_counts;
        const std::vector<int64_t> one_each(transport.size(), 1);
        in_flight[id] = transport.all_to_all(counts, one_each, one_each, name);
        break;
      }
      case Stage::expert_load: {
        at::Tensor load = state(node).routing[node.layer].load.to(at::kDouble);
        // What earlier microbatches have summed comes in once.
        if (node.reads.size() > 1 && transport.rank() == 0) load = load + values[node.reads[1]];
        in_flight[id] = transport.all_reduce(load, name);
        break;
      }
      case Stage::dispatch:
      case Stage::combine: {
        const auto& plan = state(node).routing[node.layer].plan;
        const bool backward = node.pass == Pass::backward;
        const bool outward = (node.stage == Stage::dispatch) != backward;
        const at::Tensor rows = (backward ? fan_in(node.output_grads[0]) : values[node.reads[0]]).contiguous();
        in_flight[id] = transport.all_to_all(rows, outward ? plan.send_rows : plan.recv_rows,
                                             outward ? plan.recv_rows : plan.send_rows, name);
        break;
      }
      case Stage::grad_reduce:
      case Stage::grad_reduce_experts: {
        std::vector<at::Tensor> flat;
        for (int p : reduced_parameters(e.parameters_.table(), node))
          flat.push_back(e.parameters_.main_grad(p).flatten());
        in_flight[id] = transport.all_reduce(at::cat(flat), name);
        break;
      }
      case Stage::stats:
        in_flight[id] = transport.all_reduce(e.hooks_->local_stats(result.microbatches, result.losses), name);
        break;
      default:
        fail("{} is not executed yet; execution covers the all-to-all layout", name);
    }
    release_reads(node);
  }

  void await(NodeId id) {
    at::NoGradGuard no_grad;
    const Node& node = graph.node(id);
    CollectiveReport report;
    const auto found = in_flight.find(id);
    Pending pending = std::move(found->second);
    in_flight.erase(found);
    at::Tensor received = pending.await(&report);
    switch (node.stage) {
      case Stage::counts:
        nn::complete_route_plan(state(node).routing[node.layer].plan, received);
        break;
      case Stage::expert_load:
        state(node).routing[node.layer].global_load.copy_(received);
        write(node.writes[0], std::move(received));
        break;
      case Stage::dispatch:
      case Stage::combine:
        write(node.pass == Pass::backward ? node.input_grads[0] : node.writes[0], std::move(received));
        break;
      case Stage::grad_reduce:
      case Stage::grad_reduce_experts: {
        int64_t offset = 0;
        for (int p : reduced_parameters(e.parameters_.table(), node)) {
          at::Tensor& gradient = e.parameters_.main_grad(p);
          gradient.copy_(received.narrow(0, offset, gradient.numel()).view_as(gradient));
          offset += gradient.numel();
        }
        break;
      }
      default:
        stats = received;
        break;
    }
    awaited.push_back({id, now_us()});
    result.reports.push_back(std::move(report));
  }

  /// The spans of a collective, when the step is over: only then does a device know its times.
  void record_collective(NodeId id, CollectiveReport& report, double finished_us) {
    settle(report);
    // A collective begins when its last rank has launched it; waiting before that is imbalance between ranks.
    record(id, SpanKind::collective, report.started_us, std::max(report.started_us, report.completed_us));
    const double waited_until = report.awaited_us + report.waited_us;
    const double wait_begin = std::clamp(report.started_us, report.awaited_us, waited_until);
    if (wait_begin > report.awaited_us) record(id, SpanKind::skew, report.awaited_us, wait_begin);
    if (waited_until > wait_begin) record(id, SpanKind::wait, wait_begin, waited_until);
    // Copies and sums of this rank's own.
    if (finished_us > waited_until) record(id, SpanKind::compute, waited_until, finished_us);
  }

  void record(NodeId id, SpanKind kind, double begin, double end) {
    if (e.options_.record_spans) events.push_back({id, kind, begin, end});
  }

  /// Spans are made when the step is over: their texts would cost time inside it.
  void finish_timeline() {
    result.timeline.title = e.schedule_.name;
    for (size_t i = 0; i < awaited.size(); ++i)
      record_collective(awaited[i].first, result.reports[i], awaited[i].second);
    std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.begin < b.begin; });
    for (const auto& [id, kind, begin, end] : events) {
      const Node& node = graph.node(id);
      result.timeline.spans.push_back(
          {e.communicators_.world->rank(), kind == SpanKind::collective ? lane_name(node) : "compute", e.names_[id],
           std::string(to_string(node.stage)), std::string(to_string(node.pass)), kind, begin, end});
    }
  }

  void execute() {
    result.losses.resize(result.microbatches.size());
    result.begin_us = now_us();
    for (const Op& op : e.schedule_.ops) {
      switch (op.kind) {
        case OpKind::run: {
          const double begin = now_us();
          run(op.node);
          record(op.node, SpanKind::compute, begin, now_us());
          break;
        }
        case OpKind::launch: {
          const double begin = now_us();
          launch(op.node);
          record(op.node, SpanKind::compute, begin, now_us());  // packing
          break;
        }
        case OpKind::await:
          await(op.node);
          break;
      }
    }
    result.end_us = now_us();
    finish_timeline();
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

Executor::Executor(const StageGraph& graph, Schedule schedule, const StageMath& math, ParameterSet& parameters,
                   const Communicators& communicators, StepHooks* hooks, ExecutorOptions options)
    : graph_(graph),
      schedule_(std::move(schedule)),
      math_(math),
      parameters_(parameters),
      communicators_(communicators),
      hooks_(hooks),
      options_(std::move(options)) {
  validate(graph_, schedule_);
  FARSKIP_CHECK(graph_.options().scope != Scope::step || hooks_ != nullptr, "a step graph needs hooks");
  for (const Value& value : graph_.values()) num_readers_.push_back(static_cast<int>(value.readers.size()));
  for (NodeId id = 0; id < graph_.num_nodes(); ++id) names_.push_back(graph_.name(id));
}

Executor::~Executor() = default;

StepResult Executor::run(std::vector<Batch> microbatches) {
  if (static_cast<int>(microbatches.size()) != graph_.options().num_microbatches) {
    fail("{} microbatches for a graph of {}", microbatches.size(), graph_.options().num_microbatches);
  }
  Run run(*this, std::move(microbatches));
  if (run.differentiate) parameters_.zero_grad();
  try {
    run.execute();
  } catch (...) {
    for (auto& [id, pending] : run.in_flight) pending.abandon();
    throw;
  }
  return std::move(run.result);
}

}  // namespace farskip
