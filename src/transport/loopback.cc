#include "transport/loopback.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "base/error.h"
#include "transport/clock.h"
#include "transport/health.h"
#include "transport/reduce.h"

namespace farskip {
namespace {

/// What the ranks of one process share: one lock, one place to sleep, one first error.
struct Hub : Health {
  TransportOptions options;
};

/// One collective of all its ranks. Its work falls into one unit per rank: unit r fills the result of rank r, or, in a
/// reduction, adds up what rank r keeps (all_reduce: and hands it to everyone). Whoever awaits does its own unit first
/// and then those that nobody has begun; when all are done, every result is complete and every input is free again.
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

  int size() const { return static_cast<int>(ops.size()); }

  /// Does unit `unit`. REQUIRES: started, and the caller took the unit.
  void work(int unit) {
    const at::NoGradGuard no_grad;
    switch (ops[unit].kind) {
      case CollectiveKind::all_to_all:
        return receive(unit, [&](int from) { return offsets_of(ops[from].send_rows)[unit]; });
      case CollectiveKind::all_gather:
        return receive(unit, [](int) { return int64_t{0}; });
      case CollectiveKind::reduce_scatter:
        return add(unit, results[unit]);
      case CollectiveKind::all_reduce: {
        const int64_t begin = offsets_of(ops[unit].send_rows)[unit];
        const int64_t rows = ops[unit].send_rows[unit];
        const auto sum = results[unit].narrow(0, begin, rows);
        add(unit, sum);
        for (int r = 0; r < size(); ++r)
          if (r != unit) results[r].narrow(0, begin, rows).copy_(sum);
        return;
      }
      case CollectiveKind::broadcast:
        results[unit].copy_(ops[ops[unit].root].input);
        return;
      case CollectiveKind::barrier:
        return;
    }
  }

 private:
  template <typename Begin>
  void receive(int unit, Begin begin) {
    int64_t to = 0;
    for (int from = 0; from < size(); ++from) {
      const int64_t rows = ops[unit].recv_rows[from];
      if (rows > 0) results[unit].narrow(0, to, rows).copy_(ops[from].input.narrow(0, begin(from), rows));
      to += rows;
    }
  }
  void add(int unit, const at::Tensor& sum) {
    std::vector<at::Tensor> terms;
    const int64_t begin = offsets_of(ops[unit].send_rows)[unit];
    for (const auto& op : ops) terms.push_back(op.input.narrow(0, begin, sum.size(0)));
    sum_in_rank_order(terms, sum);
  }
};

/// The communicator as its ranks share it: collectives that not all have launched, by their number.
struct SharedGroup {
  std::string name;
  std::vector<int> ranks;
  std::map<int64_t, std::shared_ptr<Meeting>> open;
};

std::string describe(const Collective& op) { return fmt::format("{} '{}'", to_string(op.kind), op.name); }

/// Why two ranks' launches cannot belong to the same collective; empty when they can.
std::string mismatch(const Collective& a, int rank_a, const Collective& b, int rank_b) {
  if (a.kind != b.kind || a.name != b.name || a.root != b.root)
    return fmt::format("rank {} launched {}, rank {} launched {} in its place", rank_a, describe(a), rank_b,
                       describe(b));
  if (a.kind == CollectiveKind::barrier) return {};
  if (a.input.scalar_type() != b.input.scalar_type() || a.input.sizes().slice(1) != b.input.sizes().slice(1))
    return fmt::format("{}: rank {} sends rows of {} {}, rank {} of {} {}", describe(a), rank_a,
                       c10::toString(a.input.scalar_type()), fmt::join(a.input.sizes().slice(1), "x"), rank_b,
                       c10::toString(b.input.scalar_type()), fmt::join(b.input.sizes().slice(1), "x"));
  if (a.send_rows[rank_b] != b.recv_rows[rank_a] || b.send_rows[rank_a] != a.recv_rows[rank_b])
    return fmt::format("{}: rank {} sends {} and expects {} rows, its peer rank {} expects {} and sends {}",
                       describe(a), rank_a, a.send_rows[rank_b], a.recv_rows[rank_b], rank_b, b.recv_rows[rank_a],
                       b.send_rows[rank_a]);
  return {};
}

class LoopbackFlight final : public InFlight {
 public:
  LoopbackFlight(std::shared_ptr<Hub> hub, std::shared_ptr<SharedGroup> group, std::shared_ptr<Meeting> meeting,
                 int rank)
      : hub_(std::move(hub)), group_(std::move(group)), meeting_(std::move(meeting)), rank_(rank) {}

  at::Tensor finish(CollectiveReport& report) override {
    std::unique_lock lock(hub_->mutex);
    wait(lock, report, [&] { return meeting_->started; });
    report.started_us = report.completed_us = meeting_->started_us;
    const double begin_us = now_us();
    for (int i = 0; i < meeting_->size(); ++i) work(lock, (rank_ + i) % meeting_->size());
    wait(lock, report, [&] { return meeting_->left == 0; });
    report.copied_us = now_us() - begin_us;  // by this rank or, at the same time, by a peer
    return meeting_->results[rank_];
  }
  bool ready() override {
    const std::lock_guard lock(hub_->mutex);
    return meeting_->started || !hub_->failure.empty();
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

  void work(std::unique_lock<std::mutex>& lock, int unit) {
    if (meeting_->taken[unit]) return;
    meeting_->taken[unit] = true;
    lock.unlock();
    try {
      meeting_->work(unit);
    } catch (const std::exception& error) {
      hub_->abort(fmt::format("collective '{}' on '{}': {}", meeting_->ops[rank_].name, group_->name, error.what()));
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
  Loopback(int rank, std::shared_ptr<Hub> hub, std::shared_ptr<SharedGroup> group)
      : Transport(rank, static_cast<int>(group->ranks.size()), group->name),
        hub_(std::move(hub)),
        group_(std::move(group)) {}

  Pending launch(Collective op) override {
    auto report = report_for(op);
    auto result = empty_result(op, rank());
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
  /// Everybody has launched. The hooks run before anyone can see that.
  void start(std::unique_lock<std::mutex>& lock, Meeting& meeting) {
    lock.unlock();
    const double started_us = now_us();
    for (const auto& op : meeting.ops)
      if (op.on_started) op.on_started(started_us);
    lock.lock();
    meeting.started_us = started_us;
    meeting.started = true;
    hub_->changed.notify_all();
  }

  std::shared_ptr<Hub> hub_;
  std::shared_ptr<SharedGroup> group_;
  int64_t num_launched_ = 0;
};

/// The communicators of one set of ranks, by name and members; a name used again makes a new one.
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
    const auto key = fmt::format("{}:{}", name, fmt::join(ranks, ","));
    auto& entry = registry_->forming[key];
    if (!entry.group) entry.group = std::make_shared<SharedGroup>(SharedGroup{name, ranks, {}});
    const auto group = entry.group;
    if (++entry.num_joined == static_cast<int>(ranks.size())) registry_->forming.erase(key);
    return std::make_unique<Loopback>(own, hub_, group);
  }

  void abort(const std::string& message) override { hub_->abort(message); }

 private:
  int rank_;
  int size_;
  std::shared_ptr<Hub> hub_;
  std::shared_ptr<Registry> registry_;
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
