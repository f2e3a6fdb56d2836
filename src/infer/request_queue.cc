#include "infer/request_queue.h"

#include <chrono>

#include "base/error.h"

namespace farskip {

uint64_t RequestQueue::push(EngineRequest request) {
  const std::lock_guard lock(mutex_);
  if (!closed_.empty()) throw Error(closed_);
  if (num_unfinished_ >= max_unfinished_) {
    throw Overloaded(
        fmt::format("{} requests are being served or wait, as many as may; try again later", num_unfinished_));
  }
  ++num_unfinished_;
  arrivals_.requests.emplace(next_id_, std::move(request));
  changed_.notify_all();
  return next_id_++;
}

void RequestQueue::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  if (!closed_.empty()) return;
  arrivals_.cancelled.insert(id);
  changed_.notify_all();
}

void RequestQueue::stop() {
  const std::lock_guard lock(mutex_);
  arrivals_.stopping = true;
  changed_.notify_all();
}

int64_t RequestQueue::num_queued() const {
  const std::lock_guard lock(mutex_);
  return std::ssize(arrivals_.requests);
}

RequestQueue::Arrivals RequestQueue::take() {
  const std::lock_guard lock(mutex_);
  Arrivals taken = std::exchange(arrivals_, {});
  arrivals_.stopping = taken.stopping;
  return taken;
}

void RequestQueue::wait(std::optional<double> seconds) {
  std::unique_lock lock(mutex_);
  const auto something = [&] {
    return arrivals_.stopping || !arrivals_.requests.empty() || !arrivals_.cancelled.empty();
  };
  if (seconds) {
    changed_.wait_for(lock, std::chrono::duration<double>(*seconds), something);
  } else {
    changed_.wait(lock, something);
  }
}

void RequestQueue::ended() {
  const std::lock_guard lock(mutex_);
  --num_unfinished_;
}

std::map<uint64_t, EngineRequest> RequestQueue::close(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (closed_.empty()) closed_ = reason;
  return std::exchange(arrivals_.requests, {});
}

}  // namespace farskip
