#pragma once
// A collective in flight. Pending owns the input and the output of its collective until it is awaited.

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace farskip {

/// What one collective did, on this rank. Times are now_us().
struct CollectiveReport {
  std::string name;         ///< as given at launch: "mb0.l3.fwd.dispatch"
  std::string group;        ///< the communicator's name
  double launched_us = 0;   ///< when this rank launched it
  double started_us = 0;    ///< when its last participant launched it, as far as the transport knows (else launched_us)
  double completed_us = 0;  ///< when its data was complete (not when somebody asked for it)
  double awaited_us = 0;    ///< when this rank asked for it
  double waited_us = 0;     ///< how long the caller then stood still: the exposed time
  double copied_us = 0;     ///< how long ranks were then busy moving or adding rows (loopback): no waiting
  int64_t bytes_sent = 0;   ///< to other ranks
  int64_t bytes_received = 0;  ///< from other ranks
  /// Set on a device only: the times above become known when the step is over. settle() calls it.
  std::function<void(CollectiveReport&)> resolve;
};

/// Makes the times of a report final. REQUIRES: the device finished the step (nothing to do on a CPU).
void settle(CollectiveReport& report);

/// One collective of one transport, behind Pending.
class InFlight {
 public:
  virtual ~InFlight() = default;
  /// Blocks until the result is complete (on a device: makes the current stream wait). Fills completed_us, copied_us.
  /// Throws Error when the collective failed, timed out, or when its communicator failed before.
  virtual at::Tensor finish(CollectiveReport& report) = 0;
  /// True when finish() would not block.
  virtual bool ready() = 0;
  /// True when the communicator failed, so that dropping this collective is no mistake of the caller.
  virtual bool failed() = 0;
};

/// Handle on a collective in flight: move-only, to be awaited exactly once. Dropping it unawaited stops the program,
/// unless the stack is unwinding from an error or the communicator failed.
class Pending {
 public:
  Pending() = default;
  /// `report` holds what is known at launch: name, group, launched_us, bytes.
  Pending(std::unique_ptr<InFlight> flight, CollectiveReport report);
  Pending(Pending&&) noexcept = default;
  Pending& operator=(Pending&& other) noexcept;
  ~Pending();

  /// The result. REQUIRES: valid(). Throws Error as InFlight::finish; the handle is spent in any case.
  at::Tensor await(CollectiveReport* report = nullptr);

  bool valid() const { return flight_ != nullptr; }
  bool ready() const;
  const std::string& name() const { return report_.name; }

  /// Drops the result on purpose: for error paths only, where peers may still be reading and writing the buffers.
  void abandon() { flight_.reset(); }

  /// Takes the parts out, for transports that wrap another one; the handle is spent.
  std::unique_ptr<InFlight> release() { return std::move(flight_); }
  const CollectiveReport& report() const { return report_; }

 private:
  void drop();

  std::unique_ptr<InFlight> flight_;
  CollectiveReport report_;
};

}  // namespace farskip
