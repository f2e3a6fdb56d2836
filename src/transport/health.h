#pragma once
// The first error of a set of communicators, and the place where their threads sleep.

#include <condition_variable>
#include <mutex>
#include <string>

namespace farskip {

/// Fields are guarded by `mutex`; `changed` is notified whenever a collective or the failure may have changed.
struct Health {
  std::mutex mutex;
  std::condition_variable changed;
  std::string failure;  ///< the first error, kept for good

  /// REQUIRES: mutex is held.
  void fail_all(const std::string& message) {
    if (failure.empty()) failure = message;
    changed.notify_all();
  }
  void abort(const std::string& message) {
    const std::lock_guard lock(mutex);
    fail_all(message);
  }
  std::string first_error() {
    const std::lock_guard lock(mutex);
    return failure;
  }
};

}  // namespace farskip
