#include "transport/queued.h"

#include <ATen/core/grad_mode.h>

#include <chrono>
#include <deque>
#include <thread>

#include "base/error.h"
#include "transport/cause.h"
#include "transport/clock.h"
#include "transport/io_priority.h"

namespace farskip {
namespace {

struct Job {
  Collective op;
  int64_t number = 0;
  double launched_us = 0;
  // Guarded by the health's mutex.
  at::Tensor result;
  double begun_us = 0;
  double completed_us = 0;
};

/// What the handle, the worker and the collectives in flight share.
struct Shared {
  GroupContext context;
  ExchangeFn exchange;
  // Guarded by the health's mutex.
  std::deque<std::shared_ptr<Job>> queue;
  std::condition_variable work;
  bool stop = false;
};

class QueuedFlight final : public InFlight {
 public:
  QueuedFlight(std::shared_ptr<Shared> shared, std::shared_ptr<Job> job)
      : shared_(std::move(shared)), job_(std::move(job)) {}

  at::Tensor finish(CollectiveReport& report) override {
    auto& health = *shared_->context.health;
    std::unique_lock lock(health.mutex);
    while (job_->completed_us == 0 && health.failure.empty()) {
      health.changed.wait_for(lock, kLook);
      if (job_->completed_us > 0 || !health.failure.empty()) break;
      lock.unlock();
      if (const auto problem = overdue(); !problem.empty())
        health.abort(shared_->context.explain(job_->op.name, job_->number, problem));
      lock.lock();
    }
    if (!health.failure.empty()) throw Error(health.failure);
    report.completed_us = job_->completed_us;
    return std::move(job_->result);
  }
  bool ready() override {
    const std::lock_guard lock(shared_->context.health->mutex);
    return job_->completed_us > 0 || !shared_->context.health->failure.empty();
  }
  bool failed() override { return !shared_->context.health->first_error().empty(); }

 private:
  static constexpr auto kLook = std::chrono::milliseconds(100);

  /// Why it is useless to wait any longer; empty while it is not.
  std::string overdue() {
    const auto& context = shared_->context;
    double begun_us = 0;
    {
      const std::lock_guard lock(context.health->mutex);
      begun_us = job_->begun_us;
    }
    if (begun_us > 0 && (now_us() - begun_us) * 1e-6 > context.options.timeout_s)
      return fmt::format("timed out after {} s", context.options.timeout_s);
    for (const int r : context.ranks)
      if (context.monitor->silence_s(r) > context.options.timeout_s)
        return fmt::format("lost a rank for {} s", context.options.timeout_s);
    return {};
  }

  std::shared_ptr<Shared> shared_;
  std::shared_ptr<Job> job_;
};

class Queued final : public Transport {
 public:
  Queued(GroupContext context, ExchangeFn exchange)
      : Transport(context.rank, static_cast<int>(context.ranks.size()), context.name),
        shared_(std::make_shared<Shared>()) {
    shared_->context = std::move(context);
    shared_->exchange = std::move(exchange);
    const RealTimeChildren real_time;
    worker_ = std::thread([shared = shared_] { serve(*shared); });
  }

  ~Queued() override {
    {
      const std::lock_guard lock(shared_->context.health->mutex);
      shared_->stop = true;
      shared_->work.notify_all();
    }
    worker_.join();
    shared_->exchange = nullptr;  // lets go of the process group, also while a handle is still held somewhere
  }

  Pending launch(Collective op) override {
    const auto& context = shared_->context;
    if (op.kind == CollectiveKind::barrier) op.input = at::zeros({size()}, at::kByte);
    auto report = report_for(op);
    const auto job = std::make_shared<Job>();
    job->op = std::move(op);
    job->launched_us = report.launched_us;
    job->number = num_launched_++;
    context.monitor->launched(name(), job->number, job->op.name);
    {
      const std::lock_guard lock(context.health->mutex);
      if (!context.health->failure.empty()) throw Error(context.health->failure);
      shared_->queue.push_back(job);
      shared_->work.notify_one();
    }
    return {std::make_unique<QueuedFlight>(shared_, job), std::move(report)};
  }

  void abort(const std::string& message) override { shared_->context.health->abort(message); }
  std::string failure() override { return shared_->context.health->first_error(); }

 private:
  /// The worker: everything launched is carried out, also what was launched just before the handle went away; after a
  /// failure nothing is.
  static void serve(Shared& shared) {
    const at::NoGradGuard no_grad;
    auto& health = *shared.context.health;
    std::unique_lock lock(health.mutex);
    while (true) {
      shared.work.wait(lock, [&] { return shared.stop || !shared.queue.empty(); });
      if (shared.queue.empty()) return;
      const auto job = std::move(shared.queue.front());
      shared.queue.pop_front();
      if (!health.failure.empty()) continue;
      job->begun_us = now_us();
      lock.unlock();
      run(shared, *job);
      lock.lock();
    }
  }

  static void run(Shared& shared, Job& job) {
    auto& health = *shared.context.health;
    try {
      auto result = run_over_exchange(job.op, shared.context.rank, shared.exchange);
      if (job.op.on_started) job.op.on_started(job.launched_us);
      const std::lock_guard lock(health.mutex);
      if (job.op.kind != CollectiveKind::barrier) job.result = std::move(result);
      job.op.input.reset();
      job.completed_us = now_us();
      health.changed.notify_all();
    } catch (const std::exception& error) {
      if (!health.first_error().empty()) return;
      health.abort(shared.context.explain(job.op.name, job.number, first_line(error)));
    }
  }

  std::shared_ptr<Shared> shared_;
  std::thread worker_;
  int64_t num_launched_ = 0;
};

}  // namespace

std::string GroupContext::explain(const std::string& op, int64_t number, const std::string& cause) const {
  return fmt::format("collective '{}' on '{}': {} ({})", op, name, monitor->blame(ranks, name, number), cause);
}

std::unique_ptr<Transport> make_queued(GroupContext context, ExchangeFn exchange) {
  return std::make_unique<Queued>(std::move(context), std::move(exchange));
}

}  // namespace farskip
