#pragma once
// Who is alive: every process writes a heartbeat into the store from a thread of its own and reads those of the others.
// A beat carries what its rank has launched on each communicator, and its error if it has one, so that a survivor can
// say which rank a collective lacks. Nobody but that thread touches the store, so a store that hangs stops nobody.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "transport/health.h"
#include "transport/transport.h"

namespace farskip {

/// The store as the monitor sees it; both functions may throw, and may block for ever when the store's host is stopped.
struct BeatStore {
  std::function<void(const std::string& beat)> write;  ///< of this rank
  std::function<std::vector<std::string>()> read;      ///< of all ranks, by rank
};

class Monitor {
 public:
  /// `health` gets the error of any rank. The store is hosted by the process of rank 0.
  Monitor(int rank, int size, BeatStore store, std::shared_ptr<Health> health, const TransportOptions& options);
  /// Publishes an error before it returns, where the store still works; never blocks for more than about a second.
  ~Monitor();

  /// This rank launched its collective number `number` (from 0) on `group`.
  void launched(const std::string& group, int64_t number, const std::string& name);

  /// Seconds for which `rank` has shown no sign of life, as far as can be known.
  double silence_s(int rank);

  /// Finds out, within about 1.5 s, which of `ranks` collective `number` of `group` lacks, and says so.
  std::string blame(const std::vector<int>& ranks, const std::string& group, int64_t number);

 private:
  struct State;
  static void watch(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace farskip
