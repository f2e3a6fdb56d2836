#pragma once
// Threads that move bytes should run the moment bytes arrive, also where computation keeps every core busy: each
// millisecond they wait for a time slice is a millisecond that every rank waits.

#include <sched.h>

namespace farskip {

/// While it lives, threads that the calling thread starts are real-time (SCHED_FIFO, lowest priority), where the
/// process may have such threads (root, CAP_SYS_NICE or an rtprio limit); elsewhere it does nothing.
class RealTimeChildren {
 public:
  RealTimeChildren();
  ~RealTimeChildren();
  RealTimeChildren(const RealTimeChildren&) = delete;
  RealTimeChildren& operator=(const RealTimeChildren&) = delete;

  bool permitted() const { return permitted_; }

 private:
  int policy_ = SCHED_OTHER;
  sched_param parameters_{};
  bool permitted_ = false;
};

}  // namespace farskip
