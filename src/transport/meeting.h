#pragma once
// One collective of ranks that share their memory: who has launched, what is done by whom, and what does not fit.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transport/device_meeting.h"
#include "transport/health.h"
#include "transport/transport.h"

namespace farskip {

/// What the ranks of one process share: one lock, one place to sleep, one first error.
struct Hub : Health {
  TransportOptions options;
  std::mutex issuing;  ///< held while a collective is given to the ranks' lanes
};

/// One collective of all its ranks. Its work falls into one unit per rank: unit r fills the result of rank r, or, in a
/// reduction, adds up what rank r keeps (all_reduce: and hands it to everyone). On a CPU, whoever awaits does its own
/// unit first and then those that nobody has begun; on a device, unit r is enqueued on the lane of rank r. When all are
/// done, every result is complete and every input is free again.
struct Meeting {
  explicit Meeting(int size)
      : ops(size), results(size), posted(size, false), taken(size, false), missing(size), left(size) {}

  std::vector<Collective> ops;
  std::vector<at::Tensor> results;
  std::vector<bool> posted;
  std::vector<bool> taken;
  int missing;           ///< ranks that have not launched
  int left;              ///< units that are not done
  bool started = false;  ///< all have launched
  double started_us = 0;
  std::unique_ptr<DeviceMeeting> device;  ///< of tensors on a device

  int size() const { return static_cast<int>(ops.size()); }

  /// Does unit `unit`. REQUIRES: all have launched, and the caller took the unit.
  void work(int unit) const;

 private:
  template <typename Begin>
  void receive(int unit, Begin begin) const;
  void add(int unit, const at::Tensor& sum) const;
};

/// The communicator as its ranks share it: collectives that not all have launched, by their number.
struct SharedGroup {
  std::string name;
  std::vector<int> ranks;
  std::map<int64_t, std::shared_ptr<Meeting>> open;
};

/// Why two ranks' launches cannot belong to the same collective; empty when they can.
std::string mismatch(const Collective& a, int rank_a, const Collective& b, int rank_b);

}  // namespace farskip
