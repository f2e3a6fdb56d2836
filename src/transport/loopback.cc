#include "transport/loopback.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "transport/cause.h"
#include "transport/clock.h"
#include "transport/meeting.h"
#include "transport/reduce.h"

namespace farskip {
namespace {

class LoopbackFlight final : public InFlight {
 public:
  LoopbackFlight(std::shared_ptr<Hub> hub, std::shared_ptr<SharedGroup> group, std::shared_ptr<Meeting> meeting,
                 int rank)
      : hub_(std::move(hub)), group_(std::move(group)), meeting_(std::move(meeting)), rank_(rank) {}

  at::Tensor finish(CollectiveReport& report) override {
    std::unique_lock lock(hub_->mutex);
    wait(lock, report, [&] { return meeting_->started; });
    if (meeting_->device) return finish_on_device(lock, report);
    report.started_us = report.completed_us = meeting_->started_us;
    const double begin_us = now_us();
    for (int i = 0; i < meeting_->size(); ++i) work(lock, (rank_ + i) % meeting_->size());
    wait(lock, report, [&] { return meeting_->left == 0; });
    report.copied_us = now_us() - begin_us;  // by this rank or, at the same time, by a peer
    return meeting_->results[rank_];
  }
  bool ready() override {
    const std::lock_guard lock(hub_->mutex);
    if (!hub_->failure.empty()) return true;
    return meeting_->started && (!meeting_->device || meeting_->device->completed(rank_));
  }
  bool failed() override { return !hub_->first_error().empty(); }

 private:
  template <typename Condition>
  void wait(std::unique_lock<std::mutex>& lock, const CollectiveReport& report, Condition condition) {
    const auto limit = std::chrono::duration<double>(hub_->options.timeout_s);
    hub_->changed.wait_for(lock, limit, [&] { return condition() || !hub_->failure.empty(); });
    if (condition()) return;  // complete: a failure that came after it is for the next one to report
    if (!hub_->failure.empty()) throw Error(hub_->failure);
    std::vector<int> absent;
    for (int r = 0; r < meeting_->size(); ++r)
      if (!meeting_->posted[r]) absent.push_back(group_->ranks[r]);
    hub_->fail_all(
        fmt::format("collective '{}' on '{}': rank {} did not launch it within {} s; is it stuck, or was it "
                    "killed?",
                    report.name, report.group, fmt::join(absent, ", "), hub_->options.timeout_s));
    throw Error(hub_->failure);
  }

  /// From here on the order of events sees to everything; the input need not outlive what the current stream awaits.
  at::Tensor finish_on_device(std::unique_lock<std::mutex>& lock, CollectiveReport& report) {
    lock.unlock();
    meeting_->device->await(rank_, meeting_->results[rank_], report);
    lock.lock();
    meeting_->ops[rank_].input.reset();
    return std::move(meeting_->results[rank_]);
  }

  void work(std::unique_lock<std::mutex>& lock, int unit) {
    if (meeting_->taken[unit]) return;
    meeting_->taken[unit] = true;
    lock.unlock();
    try {
      meeting_->work(unit);
    } catch (const std::exception& error) {
      hub_->abort(fmt::format("collective '{}' on '{}': {}", meeting_->ops[rank_].name, group_->name, text_of(error)));
    }
    lock.lock();
    if (--meeting_->left > 0) return;
    for (auto& op : meeting_->ops) op.input.reset();
    hub_->changed.notify_all();
  }

  std::shared_ptr<Hub> hub_;
  std::shared_ptr<SharedGroup> group_;
  std::shared_ptr<Meeting> meeting_;
  int rank_;
};

class Loopback final : public Transport {
 public:
  Loopback(int rank, std::shared_ptr<Hub> hub, std::shared_ptr<SharedGroup> group, std::shared_ptr<RankLane> lane)
      : Transport(rank, static_cast<int>(group->ranks.size()), group->name),
        hub_(std::move(hub)),
        group_(std::move(group)),
        lane_(std::move(lane)) {}

  Pending launch(Collective op) override {
    auto report = report_for(op);
    auto result = empty_result(op, rank());
    const auto lane = op.on_device() ? lane_->on(op.input.device()) : nullptr;
    std::unique_lock lock(hub_->mutex);
    if (!hub_->failure.empty()) throw Error(hub_->failure);
    const int64_t number = num_launched_++;
    auto& slot = group_->open[number];
    if (!slot) slot = std::make_shared<Meeting>(size());
    const auto meeting = slot;
    for (int r = 0; r < size(); ++r) {
      if (!meeting->posted[r]) continue;
      if (const auto problem = mismatch(meeting->ops[r], r, op, rank()); !problem.empty()) {
        hub_->fail_all(
            fmt::format("communicator '{}': {}; all ranks must launch the same collectives in the same order",
                        group_->name, problem));
        throw Error(hub_->failure);
      }
    }
    if (lane) {
      if (!meeting->device) meeting->device = std::make_unique<DeviceMeeting>(size());
      meeting->device->post(rank(), lane);
    }
    meeting->ops[rank()] = std::move(op);
    meeting->results[rank()] = std::move(result);
    meeting->posted[rank()] = true;
    if (--meeting->missing == 0) {
      group_->open.erase(number);
      start(lock, *meeting);
    }
    return {std::make_unique<LoopbackFlight>(hub_, group_, meeting, rank()), std::move(report)};
  }

  void abort(const std::string& message) override { hub_->abort(message); }
  std::string failure() override { return hub_->first_error(); }

 private:
  /// Everybody has launched. The hooks run, and a device gets its work, before anyone can see that.
  void start(std::unique_lock<std::mutex>& lock, Meeting& meeting) {
    lock.unlock();
    const double started_us = now_us();
    for (const auto& op : meeting.ops)
      if (op.on_started) op.on_started(started_us);
    if (meeting.device) issue(meeting);
    lock.lock();
    meeting.started_us = started_us;
    meeting.started = true;
    hub_->changed.notify_all();
  }

  void issue(Meeting& meeting) {
    const std::lock_guard lock(hub_->issuing);
    try {
      meeting.device->issue(meeting.ops, meeting.results, [&](int unit) { meeting.work(unit); });
    } catch (const std::exception& error) {
      hub_->abort(fmt::format("collective '{}' on '{}': {}", meeting.ops[rank()].name, group_->name, text_of(error)));
      throw Error(hub_->first_error());
    }
  }

  std::shared_ptr<Hub> hub_;
  std::shared_ptr<SharedGroup> group_;
  std::shared_ptr<RankLane> lane_;
  int64_t num_launched_ = 0;
};

/// The communicators that are not complete yet, by name, members and how often a rank has asked for these: a name used
/// again makes a new one, also where one rank asks twice before another has asked once.
struct Registry {
  std::mutex mutex;
  struct Entry {
    std::shared_ptr<SharedGroup> group;
    int num_joined = 0;
  };
  std::map<std::string, Entry> forming;
};

class LoopbackWorld final : public World {
 public:
  LoopbackWorld(int rank, int size, std::shared_ptr<Hub> hub, std::shared_ptr<Registry> registry)
      : rank_(rank), size_(size), hub_(std::move(hub)), registry_(std::move(registry)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::unique_ptr<Transport> group(const std::vector<int>& ranks, const std::string& name) override {
    const int own = position_in(ranks, *this, name);
    if (ranks.size() == 1) return make_single(name);
    const std::lock_guard lock(registry_->mutex);
    const auto members = fmt::format("{}:{}", name, fmt::join(ranks, ","));
    const auto key = fmt::format("{}#{}", members, num_asked_[members]++);
    auto& entry = registry_->forming[key];
    if (!entry.group) entry.group = std::make_shared<SharedGroup>(SharedGroup{name, ranks, {}});
    const auto group = entry.group;
    if (++entry.num_joined == static_cast<int>(ranks.size())) registry_->forming.erase(key);
    return std::make_unique<Loopback>(own, hub_, group, lane_);
  }

  void abort(const std::string& message) override { hub_->abort(message); }

 private:
  int rank_;
  int size_;
  std::shared_ptr<Hub> hub_;
  std::shared_ptr<Registry> registry_;
  std::shared_ptr<RankLane> lane_ = std::make_shared<RankLane>();
  std::map<std::string, int> num_asked_;  ///< by name and members
};

}  // namespace

Worlds make_loopback(int num_ranks, const TransportOptions& options) {
  if (num_ranks < 1) fail("loopback: {} ranks; needs at least one", num_ranks);
  auto hub = std::make_shared<Hub>();
  hub->options = options;
  auto registry = std::make_shared<Registry>();
  Worlds worlds;
  for (int r = 0; r < num_ranks; ++r) worlds.push_back(std::make_unique<LoopbackWorld>(r, num_ranks, hub, registry));
  return worlds;
}

}  // namespace farskip
