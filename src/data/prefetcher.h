#pragma once
// Reads ahead in the background.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "base/error.h"

namespace farskip {

/// Items first, first + 1, ... end - 1 of `make`, computed by a thread of its own, at most `capacity` of them ahead of
/// the reader. An item is a function of its number, so what is read does not depend on the speed of either side, and a
/// new prefetcher with first = position() of an old one goes on exactly there. For one reader.
template <typename Item>
class Prefetcher {
 public:
  using Make = std::function<Item(int64_t i)>;

  /// `make` is called from the worker only, with rising i. REQUIRES: capacity >= 1.
  Prefetcher(Make make, int64_t first, int64_t end, int64_t capacity)
      : make_(std::move(make)), end_(end), capacity_(capacity), position_(first) {
    FARSKIP_CHECK(capacity >= 1);
    worker_ = std::thread([this, first] { work(first); });
  }
  /// Waits for the item that is being made; those made but not read are dropped.
  ~Prefetcher() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    worker_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// Item number position(); waits until it is there. What `make` threw for it is thrown here, at its place and at
  /// every later call. REQUIRES: position() < end.
  Item next() {
    FARSKIP_CHECK(position_ < end_);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !ready_.empty() || error_; });
    if (ready_.empty()) std::rethrow_exception(error_);
    Item item = std::move(ready_.front());
    ready_.pop_front();
    ++position_;
    lock.unlock();
    changed_.notify_all();
    return item;
  }

  /// Number of the item that next() returns. For the reader's thread.
  int64_t position() const { return position_; }
  /// Items that wait to be read.
  int64_t num_ready() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(ready_.size());
  }

 private:
  void work(int64_t i) {
    for (; i < end_; ++i) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || static_cast<int64_t>(ready_.size()) < capacity_; });
        if (stopping_) return;
      }
      try {
        Item item = make_(i);
        const std::lock_guard lock(mutex_);
        ready_.push_back(std::move(item));
      } catch (...) {
        const std::lock_guard lock(mutex_);
        error_ = std::current_exception();
      }
      changed_.notify_all();
      if (error_) return;  // written by this thread only
    }
  }

  const Make make_;
  const int64_t end_;
  const int64_t capacity_;
  int64_t position_;  ///< the reader's own
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> ready_;
  std::exception_ptr error_;
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace farskip
