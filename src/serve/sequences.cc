#include "serve/sequences.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "base/progress.h"

namespace farskip::serve {

struct Sequences::Inbox {
  std::mutex mutex;
  std::condition_variable arrived;
  std::deque<Event> events;
  bool closed = false;  ///< nobody reads any more

  void push(size_t sequence, const GenerationEvent& event) {
    {
      const std::lock_guard lock(mutex);
      if (closed) return;
      events.push_back({sequence, event, monotonic_seconds()});
    }
    arrived.notify_one();
  }
};

Sequences::Sequences(GenerationService& service, std::vector<GenerationRequest> requests)
    : service_(service), inbox_(std::make_shared<Inbox>()), ended_(requests.size(), false) {
  try {
    for (size_t i = 0; i < requests.size(); ++i) {
      ids_.push_back(service.submit(std::move(requests[i]),
                                    [inbox = inbox_, i](const GenerationEvent& event) { inbox->push(i, event); }));
    }
  } catch (...) {
    for (const uint64_t id : ids_) service_.cancel(id);
    throw;
  }
}

Sequences::~Sequences() {
  for (size_t i = 0; i < ids_.size(); ++i) cancel(i);
  const std::lock_guard lock(inbox_->mutex);
  inbox_->closed = true;
  inbox_->events.clear();
}

std::optional<Sequences::Event> Sequences::next(double seconds) {
  std::unique_lock lock(inbox_->mutex);
  const auto some = [&] { return !inbox_->events.empty(); };
  if (!inbox_->arrived.wait_for(lock, std::chrono::duration<double>(seconds), some)) return std::nullopt;
  Event event = std::move(inbox_->events.front());
  inbox_->events.pop_front();
  if (!event.event.finish_reason.empty()) ended_[event.sequence] = true;
  return event;
}

void Sequences::cancel(size_t sequence) {
  if (ended_[sequence]) return;
  ended_[sequence] = true;
  service_.cancel(ids_[sequence]);
}

}  // namespace farskip::serve
