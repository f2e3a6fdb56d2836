#pragma once
// Plans on their way from rank 0 to the others, while these are busy with the plan before.

#include <memory>
#include <optional>

#include "infer/step_message.h"
#include "transport/transport.h"

namespace farskip {

class StepChannel {
 public:
  /// All ranks; its communicator carries nothing else.
  explicit StepChannel(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}

  bool sends() const { return transport_->rank() == 0; }
  /// Begins to pass on a plan, `message` on rank 0. REQUIRES: the one before was received.
  void launch(StepMessage message);
  /// The plan. Throws Error where a rank is lost.
  StepMessage receive();
  /// After a failure: what is in flight is not awaited any more.
  void abandon();

  /// Numbers of a plan that fit into one broadcast; a longer one needs a second.
  static constexpr int64_t head_size = 1024;

 private:
  std::unique_ptr<Transport> transport_;
  StepMessage message_;  ///< on rank 0
  Pending head_, rest_;
};

}  // namespace farskip
