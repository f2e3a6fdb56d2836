#include "exec/measure.h"

#include <ATen/ATen.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"

namespace farskip {
namespace {

double cpu_ms(int who) {
  rusage usage{};
  getrusage(who, &usage);
  auto ms = [](const timeval& time) { return static_cast<double>(time.tv_sec) * 1e3 + time.tv_usec / 1e3; };
  return ms(usage.ru_utime) + ms(usage.ru_stime);
}

}  // namespace

BenchLink BenchLink::parse(const std::string& text) {
  BenchLink link;
  if (!text.starts_with("share=")) {
    link.spec = LinkSpec::parse(text);
    return link;
  }
  const auto comma = text.find(',');
  const std::string share = text.substr(6, comma == std::string::npos ? comma : comma - 6);
  char* end = nullptr;
  link.share = std::strtod(share.c_str(), &end);
  if (share.empty() || *end != '\0' || !(link.share > 0 && link.share < 1)) {
    fail("link '{}': the share is '{}'; expected a number between 0 and 1", text, share);
  }
  link.spec.latency_us = 20;
  if (comma != std::string::npos)
    link.spec.latency_us = LinkSpec::parse("rate=1gbit," + text.substr(comma + 1)).latency_us;
  return link;
}

LinkUse LinkUse::of(const StageGraph& graph, const StepResult& step) {
  LinkUse use;
  for (const CollectiveReport& report : step.reports) {
    if (report.bytes_sent + report.bytes_received == 0) continue;
    use.bytes += static_cast<double>(std::max(report.bytes_sent, report.bytes_received));
    use.exchanges += graph.is_all_reduce(graph.find(report.name)) ? 2 : 1;
  }
  return use;
}

LinkSpec link_for(const BenchLink& link, double compute_us, const LinkUse& use) {
  LinkSpec spec = link.spec;
  if (link.share == 0) return spec;
  if (use.bytes == 0) fail("share={}: this layout sends nothing; give a layout of several ranks", link.share);
  const double comm_us = link.share / (1 - link.share) * compute_us;
  const double latency_us = spec.latency_us * use.exchanges;
  if (latency_us > 0.5 * comm_us) {
    fail(
        "share={}: {} exchanges of {} us latency are {:.1f} ms, more than half of the {:.1f} ms of communication "
        "wanted; give a smaller latency",
        link.share, use.exchanges, spec.latency_us, latency_us / 1e3, comm_us / 1e3);
  }
  spec.bytes_per_second = use.bytes / (comm_us - latency_us) * 1e6;
  return spec;
}

double mean_over_ranks(Transport& world, double value) {
  if (world.size() == 1) return value;
  return world.all_reduce(at::full({1}, value / world.size(), at::kDouble), "mean").await().item<double>();
}

std::vector<double> slowest_rank(Transport& world, const std::vector<double>& mine) {
  if (world.size() == 1) return mine;
  const at::Tensor all = world.all_gather(at::tensor(mine, at::kDouble).unsqueeze(0), "times").await();
  const at::Tensor slowest = std::get<0>(all.max(0)).contiguous();
  return {slowest.data_ptr<double>(), slowest.data_ptr<double>() + slowest.numel()};
}

int ranks_of_this_process(Transport& world) {
  if (world.size() == 1) return 1;
  return world.all_gather(at::full({1}, getpid(), at::kLong), "processes").await().eq(getpid()).sum().item<int>();
}

double process_cpu_ms() { return cpu_ms(RUSAGE_SELF); }
double thread_cpu_ms() { return cpu_ms(RUSAGE_THREAD); }

nlohmann::json to_json(const Estimate& estimate) {
  return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}

nlohmann::json to_json(const OverlapRow& row, int num_steps) {
  return {{"stage", row.stage},
          {"pass", row.pass},
          {"count_per_step", static_cast<double>(row.count) / num_steps},
          {"duration_ms", row.duration_us / 1e3 / num_steps},
          {"exposed_ms", row.exposed_us / 1e3 / num_steps},
          {"hidden", row.hidden()},
          {"reason", row.reason_text()}};
}

std::string to_text(const Estimate& e, int digits, double factor) {
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", factor * e.value, digits, factor * e.low, digits, factor * e.high,
                     digits);
}

}  // namespace farskip
