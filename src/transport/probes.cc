#include "transport/probes.h"

#include <atomic>

#include "base/error.h"
#include "transport/clock.h"

namespace farskip {
namespace {

class Recorded final : public Transport {
 public:
  Recorded(std::unique_ptr<Transport> inner, std::shared_ptr<Record> record)
      : Transport(inner->rank(), inner->size(), inner->name()), inner_(std::move(inner)), record_(std::move(record)) {}

  Pending launch(Collective op) override {
    const auto report = report_for(op);
    record_->add({op.kind, op.name, name(), report.bytes_sent, report.bytes_received});
    return inner_->launch(std::move(op));
  }
  void abort(const std::string& message) override { inner_->abort(message); }
  std::string failure() override { return inner_->failure(); }

 private:
  std::unique_ptr<Transport> inner_;
  std::shared_ptr<Record> record_;
};

/// A collective that this rank never joined.
class Hung final : public InFlight {
 public:
  explicit Hung(std::shared_ptr<Transport> transport) : transport_(std::move(transport)) {}
  at::Tensor finish(CollectiveReport&) override {
    while (!failed()) sleep_until_us(now_us() + 5000);
    throw Error(transport_->failure());
  }
  bool ready() override { return failed(); }
  bool failed() override { return !transport_->failure().empty(); }

 private:
  std::shared_ptr<Transport> transport_;
};

class Failing final : public Transport {
 public:
  Failing(std::unique_ptr<Transport> inner, Failure failure, std::shared_ptr<std::atomic<int64_t>> num_launched)
      : Transport(inner->rank(), inner->size(), inner->name()),
        inner_(std::move(inner)),
        failure_(failure),
        num_launched_(std::move(num_launched)) {}

  Pending launch(Collective op) override {
    if ((*num_launched_)++ != failure_.at) return inner_->launch(std::move(op));
    switch (failure_.how) {
      case Failure::How::fail: {
        const auto message =
            fmt::format("collective '{}' on '{}' failed on rank {} as requested", op.name, name(), rank());
        inner_->abort(message);
        throw Error(message);
      }
      case Failure::How::delay:
        sleep_until_us(now_us() + failure_.delay_us);
        return inner_->launch(std::move(op));
      case Failure::How::hang:
        return {std::make_unique<Hung>(inner_), report_for(op)};
    }
    return {};
  }
  void abort(const std::string& message) override { inner_->abort(message); }
  std::string failure() override { return inner_->failure(); }

 private:
  std::shared_ptr<Transport> inner_;
  Failure failure_;
  std::shared_ptr<std::atomic<int64_t>> num_launched_;
};

}  // namespace

void Record::add(Entry entry) {
  const std::lock_guard lock(mutex_);
  entries_.push_back(std::move(entry));
}

std::vector<Record::Entry> Record::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

std::vector<std::string> Record::names(const std::string& group) const {
  std::vector<std::string> names;
  for (const auto& entry : entries())
    if (group.empty() || entry.group == group) names.push_back(entry.name);
  return names;
}

void Record::clear() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
}

std::unique_ptr<World> with_record(std::unique_ptr<World> inner, std::shared_ptr<Record> record) {
  return wrap(std::move(inner), [record](std::unique_ptr<Transport> transport) {
    return std::make_unique<Recorded>(std::move(transport), record);
  });
}

std::unique_ptr<World> with_failure(std::unique_ptr<World> inner, Failure failure) {
  const auto num_launched = std::make_shared<std::atomic<int64_t>>(0);
  return wrap(std::move(inner), [failure, num_launched](std::unique_ptr<Transport> transport) {
    return std::make_unique<Failing>(std::move(transport), failure, num_launched);
  });
}

}  // namespace farskip
