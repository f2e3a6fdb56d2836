#include "tests/plain_buffer/fake_device.h"

#include <ATen/ATen.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "transport/clock.h"
#include "transport/device.h"

namespace farskip::testing {

struct FakeStream::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  bool stop = false;
  std::thread thread;

  void serve() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return stop || !queue.empty(); });
      if (queue.empty()) return;
      auto work = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      work();
      work = nullptr;  // its buffers are freed here, not under the lock
      lock.lock();
    }
  }
};

FakeStream::FakeStream() : state_(std::make_unique<State>()) {
  state_->thread = std::thread([state = state_.get()] { state->serve(); });
}

FakeStream::~FakeStream() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->changed.notify_all();
  }
  state_->thread.join();
}

void FakeStream::enqueue(std::function<void()> work) {
  const std::lock_guard lock(state_->mutex);
  state_->queue.push_back(std::move(work));
  state_->changed.notify_all();
}

namespace {

FakeStream*& current_pointer() {
  thread_local FakeStream* current = nullptr;
  return current;
}

class FakeEvent final : public DeviceEvent {
 public:
  static std::shared_ptr<FakeEvent> record(FakeStream& stream) {
    auto event = std::make_shared<FakeEvent>();
    stream.enqueue([latch = event->latch_] {
      const std::lock_guard lock(latch->mutex);
      latch->reached_us = now_us();
      latch->changed.notify_all();
    });
    return event;
  }
  bool reached() override {
    const std::lock_guard lock(latch_->mutex);
    return latch_->reached_us > 0;
  }
  void synchronize() override { latch_->wait(); }
  double us_since(const DeviceEvent& earlier) const override {
    return latch_->time_us() - static_cast<const FakeEvent&>(earlier).latch_->time_us();
  }
  void block(FakeStream& stream) const {
    stream.enqueue([latch = latch_] { latch->wait(); });
  }

 private:
  struct Latch {
    std::mutex mutex;
    std::condition_variable changed;
    double reached_us = 0;
    void wait() {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return reached_us > 0; });
    }
    double time_us() {
      const std::lock_guard lock(mutex);
      FARSKIP_CHECK(reached_us > 0, "the time of an event is asked for before it is reached");
      return reached_us;
    }
  };
  std::shared_ptr<Latch> latch_ = std::make_shared<Latch>();
};

class FakeLane final : public DeviceLane {
 public:
  void run(const std::function<void()>& issue) override {
    auto*& current = current_pointer();
    auto* const before = current;
    current = &stream_;
    try {
      issue();
    } catch (...) {
      current = before;
      throw;
    }
    current = before;
  }
  std::shared_ptr<DeviceEvent> record() override { return FakeEvent::record(current_stream()); }
  void wait(const DeviceEvent& event) override { static_cast<const FakeEvent&>(event).block(current_stream()); }
  void pause(double us) override { enqueue_computation(us); }
  void keep(const at::Tensor&) override {}  // enqueued work holds its buffers

 private:
  FakeStream stream_;
};

}  // namespace

FakeStream& current_stream() {
  if (current_pointer() != nullptr) return *current_pointer();
  thread_local FakeStream own;
  return own;
}

void enqueue_computation(double us) {
  current_stream().enqueue([us] { sleep_until_us(now_us() + us); });
}

void synchronize() { FakeEvent::record(current_stream())->synchronize(); }

}  // namespace farskip::testing

namespace farskip {

std::unique_ptr<DeviceLane> make_device_lane(at::Device device) {
  if (device.is_cpu()) fail("no streams on {}", device.str());
  return std::make_unique<testing::FakeLane>();
}

}  // namespace farskip

void at::carry_out(Device on, std::function<void()> work) {
  if (on.is_cpu()) return work();
  farskip::testing::current_stream().enqueue(std::move(work));
}
