#pragma once
// The executor walks any valid schedule of a graph: forward, backward, weight gradients, gradient reduction, optimizer.
// A stage is a segment on detached inputs, a collective is launched and awaited where the schedule says, gradients are
// added in the graph's order. So no schedule changes a bit of the result.

#include <map>
#include <memory>
#include <optional>

#include "base/error.h"
#include "exec/segment.h"
#include "model/parameter_shards.h"
#include "model/stage_math.h"
#include "schedule/schedule.h"
#include "trace/span.h"
#include "transport/transport.h"

namespace farskip {

/// This rank's communicators.
struct Communicators {
  std::shared_ptr<Transport> expert, expert_data, world;
  /// Rank r has expert rank r % n and data rank r / n, where n = Layout::expert_group().
  static Communicators make(World& world, const Layout& layout);
  Transport& of(Group group) const;
  /// Brings a block of the expert rank `owner` to expert rank 0, as SaveOptions::gather does.
  at::Tensor gather_block(const at::Tensor& block, int64_t owner) const;
};

/// What happens once a step, after all microbatches.
class StepHooks {
 public:
  virtual ~StepHooks() = default;
  /// fp64 [n], of this rank, from reduced gradients and the microbatches; summed over ranks by the stats stage.
  virtual at::Tensor local_stats(const std::vector<Microbatch>& microbatches,
                                 const std::vector<at::Tensor>& losses) = 0;
  /// The sums. Updates weights.
  virtual void optimize(const at::Tensor& stats) = 0;
  /// What this rank's optimizer keeps. REQUIRES: the graph shares it out.
  virtual ParameterShards& shards() { fail("a graph that shares optimizers out needs hooks that do"); }
};

struct ExecutorOptions {
  /// For the failing control of tests: gradients added in the order in which they were computed.
  bool fan_in_by_arrival = false;
  bool record_spans = true;
  /// The teacher's weights. REQUIRES: where the graph has a teacher, and only there.
  const StageMath* teacher = nullptr;
  /// Called with every forward value as it is written, a teacher's too. Values are shared, not copied: the loss of a
  /// distillation writes its gradient over the teacher's logits.
  std::function<void(const Value&, const at::Tensor&)> observe = {};
};

struct StepResult {
  std::vector<at::Tensor> losses;         ///< fp32 scalars, per microbatch (none for inference)
  std::vector<Microbatch> microbatches;   ///< with what routers decided
  Timeline timeline;                      ///< measured spans of this rank, in now_us()
  std::vector<CollectiveReport> reports;  ///< per collective, in the order of awaits
  double begin_us = 0, end_us = 0;
};

class Executor {
 public:
  /// The schedule is validated. `parameters` receive the weight gradients (main_grad); `hooks` may be null where the
  /// graph has no step nodes. Everything given must outlive the executor.
  Executor(const StageGraph& graph, Schedule schedule, const StageMath& math, ParameterSet& parameters,
           const Communicators& communicators, StepHooks* hooks = nullptr, ExecutorOptions options = {});
  /// For forward graphs: no parameters receive anything.
  Executor(const StageGraph& graph, Schedule schedule, const StageMath& math, const Communicators& communicators,
           ExecutorOptions options = {});
  ~Executor();

  /// Executes one step on this rank's microbatches. All ranks of the communicators call it. Throws Error where a
  /// collective fails; the executor is then spent.
  StepResult run(std::vector<Batch> microbatches);

  const Schedule& schedule() const { return schedule_; }

 private:
  friend class PartialRun;
  Executor(const StageGraph& graph, Schedule schedule, const StageMath& math, ParameterSet* parameters,
           const Communicators& communicators, StepHooks* hooks, ExecutorOptions options);

  struct Run;  // state of one step
  const StageGraph& graph_;
  Schedule schedule_;
  const StageMath& math_;
  ParameterSet* parameters_;
  const Communicators& communicators_;
  StepHooks* hooks_;
  ExecutorOptions options_;
  std::vector<int> num_readers_;    ///< per value: nodes that read it
  std::vector<std::string> names_;  ///< per node
};

}  // namespace farskip
