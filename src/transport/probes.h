#pragma once
// Transports that record or break what passes through them, for tests.

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "transport/transport.h"

namespace farskip {

/// What passed through the communicators of one rank, in order of launch. Thread-safe.
class Record {
 public:
  struct Entry {
    CollectiveKind kind;
    std::string name;
    std::string group;
    int64_t bytes_sent;
    int64_t bytes_received;
    bool operator==(const Entry&) const = default;
  };
  void add(Entry entry);
  std::vector<Entry> entries() const;
  /// Names in order, of one group (empty: of all).
  std::vector<std::string> names(const std::string& group = "") const;
  void clear();

 private:
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

std::unique_ptr<World> with_record(std::unique_ptr<World> inner, std::shared_ptr<Record> record);

/// What happens to the collective number `at` (from 0, counted over all communicators of the rank).
struct Failure {
  enum class How : uint8_t {
    fail,   ///< launch throws and the communicator is aborted
    delay,  ///< launch sleeps for `delay_us` first
    hang,   ///< this rank never joins: its await blocks until the communicator fails (its peers time out)
  };
  How how = How::fail;
  int64_t at = 0;
  double delay_us = 0;
};

std::unique_ptr<World> with_failure(std::unique_ptr<World> inner, Failure failure);

}  // namespace farskip
