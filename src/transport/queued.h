#pragma once
// A transport over any blocking all-to-all: one worker thread per communicator takes the collectives in order of
// launch, so that all their phases progress without the caller.

#include <memory>
#include <string>
#include <vector>

#include "transport/health.h"
#include "transport/monitor.h"
#include "transport/reduce.h"
#include "transport/transport.h"

namespace farskip {

/// A communicator as one process sees it.
struct GroupContext {
  std::string name;
  std::vector<int> ranks;  ///< of the world
  int rank = 0;            ///< within the group
  std::shared_ptr<Health> health;
  std::shared_ptr<Monitor> monitor;
  TransportOptions options;

  /// The text of a failed collective: which, where, which rank it lacks (found out by the monitor), and the cause.
  std::string explain(const std::string& name, int64_t number, const std::string& cause) const;
};

/// REQUIRES: `exchange` throws after options.timeout_s at the latest, and when a peer is lost.
std::unique_ptr<Transport> make_queued(GroupContext context, ExchangeFn exchange);

}  // namespace farskip
