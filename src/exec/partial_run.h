#pragma once
// A forward pass that stops where its caller likes: what has been computed may be looked at, weights of stages that
// come may be changed, and what waits may be kept elsewhere meanwhile.

#include <memory>

#include "exec/executor.h"

namespace farskip {

class PartialRun {
 public:
  /// `executor`, of a forward graph, must outlive it; any number of runs of one executor may be under way. Ranks
  /// advance runs together: what lies between two stops may hold collectives.
  PartialRun(Executor& executor, Batch batch);
  ~PartialRun();
  PartialRun(PartialRun&&) noexcept;

  /// Goes on until the first operation of `node` in the schedule. REQUIRES: it is still to come. Throws Error as
  /// Executor::run.
  void run_before(NodeId node);
  /// Goes on to the end.
  void finish();

  /// A value that is there and still to be read by somebody.
  const at::Tensor& value(ValueId id) const;
  /// Puts another tensor in place of such a value, before anybody has read it.
  void replace(ValueId id, at::Tensor other);
  /// Replaces each value that is still to be read by another tensor of the same elements.
  void exchange(const std::function<at::Tensor(const at::Tensor&)>& other);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace farskip
