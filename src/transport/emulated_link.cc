#include "transport/emulated_link.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "transport/clock.h"

namespace farskip {
namespace {

/// "2gbit" with units {{"gbit", 1.25e8}, ...} -> 2.5e8.
double parse_quantity(const std::string& text, const std::vector<std::pair<std::string, double>>& units,
                      const std::string& all) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && number >= 0 && std::isfinite(number))
    for (const auto& [unit, factor] : units)
      if (end == text.data() + (text.size() - std::min(unit.size(), text.size())) && text.ends_with(unit))
        return number * factor;
  std::vector<std::string> names;
  for (const auto& unit : units) names.push_back(unit.first);
  fail("link '{}': '{}' is not a number with one of the units {}", all, text, fmt::join(names, ", "));
}

class LinkedFlight final : public InFlight {
 public:
  LinkedFlight(std::unique_ptr<InFlight> inner, std::shared_ptr<const double> through_us)
      : inner_(std::move(inner)), through_us_(std::move(through_us)) {}

  at::Tensor finish(CollectiveReport& report) override {
    auto result = inner_->finish(report);  // whose return makes on_started's write visible
    report.completed_us = std::max(report.completed_us, *through_us_);
    sleep_until_us(*through_us_);
    return result;
  }
  bool ready() override { return inner_->ready() && now_us() >= *through_us_; }
  bool failed() override { return inner_->failed(); }

 private:
  std::unique_ptr<InFlight> inner_;
  std::shared_ptr<const double> through_us_;
};

class EmulatedLink final : public Transport {
 public:
  EmulatedLink(std::unique_ptr<Transport> inner, std::shared_ptr<Link> link)
      : Transport(inner->rank(), inner->size(), inner->name()), inner_(std::move(inner)), link_(std::move(link)) {}

  Pending launch(Collective op) override {
    if (size() == 1) return inner_->launch(std::move(op));
    const auto exchanges = traffic(op, rank());
    if (op.on_device()) {
      op.pause_us += link_->spec().duration_us(exchanges);
      return inner_->launch(std::move(op));
    }
    const auto through_us = std::make_shared<double>(0);
    op.on_started = [link = link_, exchanges, through_us, next = op.on_started](double started_us) {
      *through_us = link->reserve(started_us, exchanges);
      if (next) next(started_us);
    };
    auto pending = inner_->launch(std::move(op));
    auto report = pending.report();
    return {std::make_unique<LinkedFlight>(pending.release(), through_us), std::move(report)};
  }
  void abort(const std::string& message) override { inner_->abort(message); }
  std::string failure() override { return inner_->failure(); }

 private:
  std::unique_ptr<Transport> inner_;
  std::shared_ptr<Link> link_;
};

}  // namespace

LinkSpec LinkSpec::parse(const std::string& text) {
  LinkSpec spec;
  if (text == "none") return spec;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
    if (key == "rate") {
      spec.bytes_per_second =
          parse_quantity(value, {{"gbit", 1.25e8}, {"mbit", 1.25e5}, {"kbit", 125}, {"bit", 0.125}}, text);
      if (spec.bytes_per_second == 0) fail("link '{}': a rate of 0 never delivers; leave rate out for no limit", text);
    } else if (key == "latency") {
      spec.latency_us = parse_quantity(value, {{"us", 1}, {"ms", 1e3}, {"s", 1e6}}, text);
    } else {
      fail("link '{}': '{}' is neither rate=... nor latency=...; e.g. rate=2gbit,latency=50us, or none", text, item);
    }
    begin = end + 1;
  }
  return spec;
}

std::string LinkSpec::to_string() const {
  if (off()) return "none";
  std::vector<std::string> items;
  if (bytes_per_second > 0) items.push_back(fmt::format("rate={}mbit", bytes_per_second / 1.25e5));
  if (latency_us > 0) items.push_back(fmt::format("latency={}us", latency_us));
  return fmt::format("{}", fmt::join(items, ","));
}

double LinkSpec::duration_us(const std::vector<Traffic>& exchanges) const {
  double duration = 0;
  for (const auto& exchange : exchanges) {
    duration += latency_us;
    if (bytes_per_second > 0)
      duration += static_cast<double>(std::max(exchange.sent, exchange.received)) / bytes_per_second * 1e6;
  }
  return duration;
}

void Link::set_spec(LinkSpec spec) {
  const std::lock_guard lock(mutex_);
  spec_ = spec;
  free_us_ = 0;
}

LinkSpec Link::spec() const {
  const std::lock_guard lock(mutex_);
  return spec_;
}

double Link::reserve(double started_us, const std::vector<Traffic>& exchanges) {
  const std::lock_guard lock(mutex_);
  if (spec_.off()) return started_us;
  free_us_ = std::max(started_us, free_us_) + spec_.duration_us(exchanges);
  return free_us_;
}

std::unique_ptr<Transport> make_emulated_link(std::unique_ptr<Transport> inner, std::shared_ptr<Link> link) {
  return std::make_unique<EmulatedLink>(std::move(inner), std::move(link));
}

std::unique_ptr<World> with_link(std::unique_ptr<World> inner, std::shared_ptr<Link> link) {
  return wrap(std::move(inner),
              [link](std::unique_ptr<Transport> transport) { return make_emulated_link(std::move(transport), link); });
}

}  // namespace farskip
