#include "exec/partial_run.h"

#include "base/error.h"
#include "exec/executor_run.h"

namespace farskip {

struct PartialRun::State {
  Executor::Run run;
  const std::vector<Op>& ops;
  size_t next = 0;

  State(Executor& executor, std::vector<Batch> batch) : run(executor, std::move(batch)), ops(executor.schedule_.ops) {
    run.result.losses.resize(run.result.microbatches.size());
  }
  ~State() {
    for (auto& [id, pending] : run.in_flight) pending.abandon();
  }
};

PartialRun::PartialRun(Executor& executor, Batch batch) {
  FARSKIP_CHECK(executor.graph_.options().scope == Scope::forward, "only forward passes stop on the way");
  std::vector<Batch> batches;
  batches.push_back(std::move(batch));
  state_ = std::make_unique<State>(executor, std::move(batches));
}

PartialRun::~PartialRun() = default;
PartialRun::PartialRun(PartialRun&&) noexcept = default;

void PartialRun::run_before(NodeId node) {
  for (; state_->next < state_->ops.size(); ++state_->next) {
    const Op& op = state_->ops[state_->next];
    if (op.node == node) return;
    state_->run.execute(op);
  }
  FARSKIP_CHECK(node == no_node, "the run had gone past that node");
}

void PartialRun::finish() { run_before(no_node); }

const at::Tensor& PartialRun::value(ValueId id) const {
  const at::Tensor& value = state_->run.values[id];
  FARSKIP_CHECK(value.defined(), "a value that is not there (any more)");
  return value;
}

void PartialRun::replace(ValueId id, at::Tensor other) {
  FARSKIP_CHECK(value(id).sizes() == other.sizes());
  state_->run.values[id] = std::move(other);
}

void PartialRun::exchange(const std::function<at::Tensor(const at::Tensor&)>& other) {
  for (at::Tensor& value : state_->run.values) {
    if (value.defined()) value = other(value);
  }
  // Plans of layers that are over.
  if (state_->next == state_->ops.size()) return;
  const Node& next = state_->run.graph.node(state_->ops[state_->next].node);
  for (int layer = 0; layer < next.layer; ++layer) state_->run.state(next).routing[layer] = {};
}

}  // namespace farskip
