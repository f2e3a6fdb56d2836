#include "transport/pending.h"

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "base/error.h"
#include "transport/clock.h"

namespace farskip {

void settle(CollectiveReport& report) {
  if (!report.resolve) return;
  const auto resolve = std::move(report.resolve);
  report.resolve = nullptr;
  resolve(report);
}

Pending::Pending(std::unique_ptr<InFlight> flight, CollectiveReport report)
    : flight_(std::move(flight)), report_(std::move(report)) {}

Pending& Pending::operator=(Pending&& other) noexcept {
  if (this == &other) return *this;
  drop();
  flight_ = std::move(other.flight_);
  report_ = std::move(other.report_);
  return *this;
}

Pending::~Pending() { drop(); }

void Pending::drop() {
  if (flight_ && std::uncaught_exceptions() == 0 && !flight_->failed()) {
    std::fprintf(stderr,
                 "farskip: collective '%s' of communicator '%s' was launched, but dropped without being awaited\n",
                 report_.name.c_str(), report_.group.c_str());
    std::abort();
  }
  flight_.reset();
}

at::Tensor Pending::await(CollectiveReport* report) {
  FARSKIP_CHECK(valid(), "a collective is awaited exactly once: " + report_.name);
  const auto flight = std::move(flight_);
  report_.awaited_us = now_us();
  at::Tensor result = flight->finish(report_);
  report_.waited_us = std::max(0.0, now_us() - report_.awaited_us - report_.copied_us);
  report_.started_us = std::max(report_.started_us, report_.launched_us);
  if (report) *report = std::move(report_);
  return result;
}

bool Pending::ready() const {
  FARSKIP_CHECK(valid(), "ready() of a spent handle");
  return flight_->ready();
}

}  // namespace farskip
