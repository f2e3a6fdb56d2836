#include "exec/executor.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "exec/executor_run.h"
#include "nn/accumulate.h"
#include "schedule/validate.h"
#include "transport/clock.h"

namespace farskip {

Communicators Communicators::make(World& world, const Layout& layout) {
  if (layout.world() != world.size()) {
    fail("layout {} needs {} ranks, {} are running", layout.to_string(), layout.world(), world.size());
  }
  std::vector<int> experts, same_experts, all;
  for (int r = 0; r < world.size(); ++r) {
    const int group = layout.expert_group();
    if (r / group == world.rank() / group) experts.push_back(r);
    if (r % group == world.rank() % group) same_experts.push_back(r);
    all.push_back(r);
  }
  return {world.group(experts, to_string(Group::expert)), world.group(same_experts, to_string(Group::expert_data)),
          world.group(all, to_string(Group::world))};
}

at::Tensor Communicators::gather_block(const at::Tensor& block, int64_t owner) const {
  return owner == 0 ? block : expert->broadcast(block.contiguous(), static_cast<int>(owner), "save").await();
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

at::Tensor Executor::Run::fan_in(std::vector<ValueId> contributions) {
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

std::vector<at::Tensor> Executor::Run::compute(NodeId id, const std::vector<at::Tensor>& inputs,
                                               const std::vector<bool>& flags) {
  const Node& node = graph.node(id);
  if (!differentiate || node.recompute != no_node || node.pass == Pass::teacher) {
    at::NoGradGuard no_grad;
    return math(node).forward(node, inputs, state(node), nullptr);
  }
  segments[id] = std::make_unique<Segment>();
  return segments[id]->run(inputs, flags, [&](const std::vector<at::Tensor>& cut, nn::WeightGradQueue* queue) {
    return math(node).forward(node, cut, state(node), queue);
  });
}

void Executor::Run::run_forward(NodeId id) {
  const Node& node = graph.node(id);
  std::map<ValueId, at::Tensor> sums;
  auto operand = [&](ValueId v) { return sums.count(v) ? sums[v] : values[v]; };
  for (const Sum& sum : node.sums) write(sum.out, sums[sum.out] = operand(sum.left) + operand(sum.right));
  if (only_sums(node.stage)) return;
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

void Executor::Run::run_again(NodeId id) {
  const Node& node = graph.node(id);
  std::vector<bool> flags;
  for (ValueId v : node.reads) flags.push_back(graph.value(v).differentiable);
  std::optional<nn::RoutePlan> plan;  // the one that is in use stays
  if (node.stage == Stage::route) plan = state(node).routing[node.layer].plan;
  auto outputs = compute(id, read(node.reads), flags);
  if (plan) state(node).routing[node.layer].plan = *std::move(plan);
  for (size_t i = 0; i < outputs.size(); ++i) write(node.writes[i], std::move(outputs[i]));
}

void Executor::Run::run_view_backward(NodeId id) {
  const Node& node = graph.node(id);
  const Node& forward = graph.node(node.forward);
  std::map<ValueId, at::Tensor> grads;
  auto add = [&](ValueId v, const at::Tensor& g) {
    if (g.defined()) grads[v] = grads[v].defined() ? grads[v] + g : g;
  };
  for (size_t i = 0; i < forward.writes.size(); ++i) grads[forward.writes[i]] = fan_in(node.output_grads[i]);
  if (forward.stage == Stage::view_ff) {
    state(node).again.erase(node.layer);
    add(forward.view, segments[graph.saved_by(node)]->backward({grads[forward.writes.back()]})[0]);
  }
  for (auto sum = forward.sums.rbegin(); sum != forward.sums.rend(); ++sum) {
    add(sum->left, grads[sum->out]);
    add(sum->right, grads[sum->out]);
  }
  for (size_t i = 0; i < forward.reads.size(); ++i) {
    if (node.input_grads[i] != no_value) write(node.input_grads[i], grads[forward.reads[i]]);
  }
}

void Executor::Run::run_backward(NodeId id) {
  const Node& node = graph.node(id);
  const Stage stage = node.stage;
  if (only_sums(stage) || stage == Stage::view_ff) return run_view_backward(id);
  std::vector<at::Tensor> output_grads;
  if (stage == Stage::loss) {
    output_grads.push_back(at::ones({}, result.losses[node.microbatch].options()));
  } else {
    for (const auto& contributions : node.output_grads) output_grads.push_back(fan_in(contributions));
  }
  Segment& segment = *segments[graph.saved_by(node)];
  auto input_grads = segment.backward(output_grads);
  segment.queue().forget([&](int parameter) { return e.parameters_->frozen(parameter); });
  for (size_t i = 0; i < node.input_grads.size(); ++i) {
    if (node.input_grads[i] != no_value) write(node.input_grads[i], std::move(input_grads[i]));
  }
  if (!row(stage).has_weights) segments[graph.saved_by(node)].reset();
}

void Executor::Run::run_wgrad(const Node& node) {
  at::NoGradGuard no_grad;
  segments[graph.saved_by(node)]->queue().drain([&](int parameter, const at::Tensor& gradient) {
    nn::accumulate_(e.parameters_->main_grad(parameter), gradient);
  });
  segments[graph.saved_by(node)].reset();
}

void Executor::Run::run(NodeId id) {
  const Node& node = graph.node(id);
  switch (node.pass) {
    case Pass::forward:
    case Pass::teacher:
      run_forward(id);
      break;
    case Pass::recompute:
      run_again(id);
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

void Executor::Run::execute(const Op& op) {
  if (op.kind == OpKind::await) return await(op.node);
  const double begin = now_us();
  op.kind == OpKind::run ? run(op.node) : launch(op.node);
  record(op.node, SpanKind::compute, begin, now_us());  // of a launch: packing
}

void Executor::Run::execute() {
  result.losses.resize(result.microbatches.size());
  result.begin_us = now_us();
  for (const Op& op : e.schedule_.ops) execute(op);
  result.end_us = now_us();
  finish_timeline();
}

Executor::Executor(const StageGraph& graph, Schedule schedule, const StageMath& math, ParameterSet& parameters,
                   const Communicators& communicators, StepHooks* hooks, ExecutorOptions options)
    : Executor(graph, std::move(schedule), math, &parameters, communicators, hooks, std::move(options)) {}

Executor::Executor(const StageGraph& graph, Schedule schedule, const StageMath& math,
                   const Communicators& communicators, ExecutorOptions options)
    : Executor(graph, std::move(schedule), math, nullptr, communicators, nullptr, std::move(options)) {}

Executor::Executor(const StageGraph& graph, Schedule schedule, const StageMath& math, ParameterSet* parameters,
                   const Communicators& communicators, StepHooks* hooks, ExecutorOptions options)
    : graph_(graph),
      schedule_(std::move(schedule)),
      math_(math),
      parameters_(parameters),
      communicators_(communicators),
      hooks_(hooks),
      options_(std::move(options)) {
  validate(graph_, schedule_);
  FARSKIP_CHECK(graph_.options().scope == Scope::forward || parameters_ != nullptr, "gradients need parameters");
  FARSKIP_CHECK(graph_.options().scope != Scope::step || hooks_ != nullptr, "a step graph needs hooks");
  FARSKIP_CHECK(graph_.options().teacher.has_value() == (options_.teacher != nullptr), "a teacher needs weights");
  for (const Value& value : graph_.values()) num_readers_.push_back(static_cast<int>(value.readers.size()));
  for (NodeId id = 0; id < graph_.num_nodes(); ++id) names_.push_back(graph_.name(id));
}

Executor::~Executor() = default;

StepResult Executor::run(std::vector<Batch> microbatches) {
  if (static_cast<int>(microbatches.size()) != graph_.options().num_microbatches) {
    fail("{} microbatches for a graph of {}", microbatches.size(), graph_.options().num_microbatches);
  }
  Run run(*this, std::move(microbatches));
  if (run.differentiate) parameters_->zero_grad();
  try {
    run.execute();
  } catch (...) {
    for (auto& [id, pending] : run.in_flight) pending.abandon();
    throw;
  }
  return std::move(run.result);
}

}  // namespace farskip
