#include "train/bench.h"

#include <ATen/ATen.h>
#include <sys/resource.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "exec/profile.h"
#include "sim/exposure.h"
#include "sim/search.h"

namespace farskip {

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
  if (share.empty() || *end != '\0' || link.share <= 0 || link.share >= 1) {
    fail("link '{}': the share is '{}'; expected a number between 0 and 1", text, share);
  }
  link.spec.latency_us = 20;
  if (comma != std::string::npos)
    link.spec.latency_us = LinkSpec::parse("rate=1gbit," + text.substr(comma + 1)).latency_us;
  return link;
}

namespace {

enum Mode { blocking, overlapped, compute };
constexpr int num_modes = 3;

/// CPU time, user and system, that all threads of this process have used.
double cpu_ms() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto ms = [](const timeval& time) { return static_cast<double>(time.tv_sec) * 1e3 + time.tv_usec / 1e3; };
  return ms(usage.ru_utime) + ms(usage.ru_stime);
}

class Bench {
 public:
  Bench(const BenchOptions& options, RankContext& context)
      : options_(options),
        context_(context),
        session_(make_session()),
        world_(*session_.communicators().world),
        reference_(reference_schedule(session_.graph())),
        profile_(session_.graph()) {}

  BenchResult run() {
    calibrate();
    choose_schedule();
    check_bits();
    measure();
    return std::move(result_);
  }

 private:
  TrainingSession make_session() {
    const auto& config = options_.config;
    if (options_.samples) return TrainingSession(config, context_.world, options_.samples);
    const auto vocab = TrainingModel::load(config).config.vocab_size;
    return TrainingSession(config, context_.world, synthetic_samples(config.seq_length, vocab, 7));
  }

  double mean_over_ranks(double value) {
    if (world_.size() == 1) return value;
    return world_.all_reduce(at::full({1}, value / world_.size(), at::kDouble), "mean").await().item<double>();
  }

  StepResult timed_step(const Schedule& schedule, const LinkSpec& link) {
    world_.barrier();
    context_.link->set_spec(link);
    return session_.step(iteration_++, schedule);
  }

  /// Warm-up and profile with a free link; finds the link for the wanted share.
  void calibrate() {
    std::vector<double> times;
    double bytes = 0;
    int exchanges = 0;
    for (int i = 0; i < 16; ++i) {
      const StepResult step = timed_step(reference_, {});
      if (i < 4) continue;
      profile_.add(step);
      times.push_back(step.end_us - step.begin_us);
      bytes = 0;
      exchanges = 0;
      for (const auto& report : step.reports) {
        bytes += static_cast<double>(std::max(report.bytes_sent, report.bytes_received));
        const bool all_reduce = report.name.find("reduce") != std::string::npos || report.name.ends_with("stats");
        if (report.bytes_sent + report.bytes_received > 0) exchanges += all_reduce ? 2 : 1;
      }
    }
    link_ = options_.link.spec;
    if (options_.link.share > 0) {
      const double compute_us = mean_over_ranks(median(times));
      const double comm_us = options_.link.share / (1 - options_.link.share) * compute_us;
      const double latency_us = link_.latency_us * exchanges;
      if (latency_us > 0.5 * comm_us) {
        fail(
            "share={}: {} exchanges of {} us latency are {:.1f} ms, more than half of the {:.1f} ms of communication "
            "wanted; "
            "give a smaller latency",
            options_.link.share, exchanges, link_.latency_us, latency_us / 1e3, comm_us / 1e3);
      }
      link_.bytes_per_second = mean_over_ranks(bytes) / (comm_us - latency_us) * 1e6;
    }
    result_.link_spec = link_;
    result_.link = link_.to_string();
  }

  void choose_schedule() {
    const StageGraph& graph = session_.graph();
    costs_ = profile_.table(link_, world_);
    const SearchResult found = search_schedule(graph, costs_);
    schedule_ =
        options_.config.schedule == "search" ? found.schedule : named_schedule(options_.config.schedule, graph, costs_);
    result_.schedule = schedule_.name;
    for (const auto& candidate : found.candidates)
      result_.candidates.emplace_back(candidate.name, candidate.step_us / 1e3);
    result_.schedule_hash = hash(graph, schedule_);
    const Simulation planned = simulate(graph, schedule_, costs_);
    result_.simulated = planned.timeline;
    result_.simulated.title = "simulated: " + schedule_.name;
    result_.simulated_overlapped_ms = planned.step_us / 1e3;
    result_.simulated_blocking_ms = simulate(graph, reference_, costs_).step_us / 1e3;
    result_.simulated_overlap = summarize(measure_overlap(planned.timeline, exposure_hint(graph, costs_)));
    double fastest_us = planned.step_us;
    for (const auto& candidate : found.candidates) fastest_us = std::min(fastest_us, candidate.step_us);
    result_.bound_ms = std::max(fastest_us, lane_bound_us(graph, costs_)) / 1e3;
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const Node& node = graph.node(id);
      if (node.is_collective()) {
        result_.t_comm_ms += costs_.us[id] / 1e3;
      } else {
        result_.stage_ms[fmt::format("{}.{}", to_string(node.pass), to_string(node.stage))] += costs_.us[id] / 1e3;
      }
    }
  }

  /// The answer first: the same weights, bit for bit, whatever the order.
  void check_bits() {
    context_.link->set_spec(link_);
    TrainingSession a = make_session(), b = make_session();
    for (int i = 0; i < options_.num_check_steps; ++i) {
      a.step(i, reference_);
      b.step(i, schedule_);
      if (a.stats().loss != b.stats().loss)
        fail("step {}: loss {} blocking, {} overlapped", i, a.stats().loss, b.stats().loss);
    }
    for (int id = 0; id < a.parameters().size(); ++id) {
      if (!at::equal(a.parameters().main(id), b.parameters().main(id))) {
        fail("{} differs between blocking and overlapped steps", a.parameters().table()[id].name);
      }
    }
  }

  void measure() {
    std::vector<std::vector<double>> times(num_modes);
    std::vector<CollectiveTiming> timings;
    double skew_us = 0;
    double waited_ms[num_modes] = {};
    const auto hint = exposure_hint(session_.graph(), costs_, options_.config.schedule != "reference");
    for (int round = 0; round < options_.num_rounds; ++round) {
      for (int turn = 0; turn < num_modes; ++turn) {
        const auto mode = static_cast<Mode>((turn + round) % num_modes);
        const double cpu_before_ms = cpu_ms();
        StepResult step = timed_step(mode == blocking ? reference_ : schedule_, mode == compute ? LinkSpec{} : link_);
        times[mode].push_back((step.end_us - step.begin_us) / 1e3);
        for (const auto& report : step.reports) waited_ms[mode] += report.waited_us / 1e3 / options_.num_rounds;
        if (mode != overlapped) continue;
        result_.cpu_ms += (cpu_ms() - cpu_before_ms) / options_.num_rounds;
        for (const Span& span : step.timeline.spans) {
          if (span.kind == SpanKind::skew) skew_us += (span.end_us - span.begin_us) / options_.num_rounds;
        }
        const auto measured = measure_overlap(step.timeline, hint);
        timings.insert(timings.end(), measured.begin(), measured.end());
        result_.measured = std::move(step.timeline);
      }
      if (world_.rank() == 0 && (round + 1) % 20 == 0)
        log_info(fmt::format("round {} of {}", round + 1, options_.num_rounds));
    }
    result_.measured.title = "measured: " + schedule_.name;
    result_.skew_ms = skew_us / 1e3;
    result_.waited_blocking_ms = mean_over_ranks(waited_ms[blocking]);
    result_.waited_overlapped_ms = mean_over_ranks(waited_ms[overlapped]);
    result_.overlap = summarize(timings);
    result_.num_rounds = options_.num_rounds;
    for (auto& mode : times) mode = slowest_rank(mode);
    result_.t_blocking_ms = median_interval(times[blocking]);
    result_.t_overlapped_ms = median_interval(times[overlapped]);
    result_.t_compute_ms = median_interval(times[compute]);
    auto figure = [&](auto&& formula) {
      return bootstrap_interval(options_.num_rounds, [&](const std::vector<int64_t>& chosen) {
        auto of = [&](Mode mode) {
          std::vector<double> values;
          for (int64_t i : chosen) values.push_back(times[mode][i]);
          return median(values);
        };
        return formula(of);
      });
    };
    result_.saved = figure([](auto&& t) { return (t(blocking) - t(overlapped)) / (t(blocking) - t(compute)); });
    result_.speedup = figure([](auto&& t) { return t(blocking) / t(overlapped); });
    result_.efficiency = figure([&](auto&& t) { return result_.bound_ms / t(overlapped); });
  }

  /// Element by element the largest over ranks: a step is over when the last rank is done.
  std::vector<double> slowest_rank(const std::vector<double>& mine) {
    if (world_.size() == 1) return mine;
    const at::Tensor all = world_.all_gather(at::tensor(mine, at::kDouble).unsqueeze(0), "times").await();
    const at::Tensor slowest = std::get<0>(all.max(0)).contiguous();
    return {slowest.data_ptr<double>(), slowest.data_ptr<double>() + slowest.numel()};
  }

  const BenchOptions& options_;
  RankContext& context_;
  TrainingSession session_;
  Transport& world_;
  Schedule reference_, schedule_;
  CostProfile profile_;
  CostTable costs_;
  LinkSpec link_;
  int64_t iteration_ = 0;
  BenchResult result_;
};

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

}  // namespace

double BenchResult::waiting_hidden() const {
  return waited_blocking_ms > 0 ? 1 - waited_overlapped_ms / waited_blocking_ms : 0;
}

nlohmann::json BenchResult::to_json() const {
  using farskip::to_json;
  nlohmann::json json{{"schedule", schedule},
                      {"schedule_hash", fmt::format("{:016x}", schedule_hash)},
                      {"link", link},
                      {"rounds", num_rounds},
                      {"t_blocking", to_json(t_blocking_ms)},
                      {"t_overlapped", to_json(t_overlapped_ms)},
                      {"t_compute", to_json(t_compute_ms)},
                      {"t_comm", t_comm_ms},
                      {"bound", bound_ms},
                      {"saved", to_json(saved)},
                      {"efficiency", to_json(efficiency)},
                      {"speedup", to_json(speedup)},
                      {"hidden_forward", overlap.hideable_forward.hidden()},
                      {"hidden_backward", overlap.hideable_backward.hidden()},
                      {"hidden_total", overlap.hideable_total.hidden()},
                      {"hidden_forward_all", overlap.forward.hidden()},
                      {"hidden_backward_all", overlap.backward.hidden()},
                      {"hidden_total_all", overlap.total.hidden()},
                      {"simulated_blocking", simulated_blocking_ms},
                      {"simulated_overlapped", simulated_overlapped_ms},
                      {"rank_skew", skew_ms},
                      {"waited_blocking", waited_blocking_ms},
                      {"waited_overlapped", waited_overlapped_ms},
                      {"waiting_hidden", waiting_hidden()},
                      {"cpu", cpu_ms},
                      {"unit", "ms"}};
  for (const auto& [name, ms] : candidates) json["candidates"][name] = ms;
  for (const auto& [stage, ms] : stage_ms) json["stages"][stage] = ms;
  for (const auto& row : overlap.kinds) json["collectives"].push_back(to_json(row, num_rounds));
  for (const auto& row : simulated_overlap.kinds) json["simulated_collectives"].push_back(to_json(row, 1));
  return json;
}

std::string BenchResult::text() const {
  auto ms = [](const Estimate& e) { return fmt::format("{:.2f} [{:.2f}, {:.2f}]", e.value, e.low, e.high); };
  auto share = [](const Estimate& e) { return fmt::format("{:.3f} [{:.3f}, {:.3f}]", e.value, e.low, e.high); };
  auto percent = [](const OverlapRow& row) { return fmt::format("{:.1f} %", 100 * row.hidden()); };
  Table table{{"figure", "value", "meaning"},
              {},
              fmt::format("{} interleaved rounds, medians with 95 % intervals; link {}; schedule {}", num_rounds, link,
                          schedule)};
  table.rows = {
      {"T_blocking", ms(t_blocking_ms), "ms a step, declaration order, every collective awaited at once"},
      {"T_overlapped", ms(t_overlapped_ms), "ms a step, this schedule"},
      {"T_compute", ms(t_compute_ms), "ms a step, this schedule, link time zero"},
      {"T_comm", fmt::format("{:.2f}", t_comm_ms), "ms of link time a step"},
      {"bound", fmt::format("{:.2f}", bound_ms), "ms, the best order the simulation finds"},
      {"saved", share(saved), "(blocking - overlapped) / (blocking - compute)"},
      {"efficiency", share(efficiency), "bound / overlapped"},
      {"speed-up", share(speedup), "blocking / overlapped"},
      {"hidden forward", percent(overlap.hideable_forward), "of the hideable time; all: " + percent(overlap.forward)},
      {"hidden backward", percent(overlap.hideable_backward),
       "of the hideable time; all: " + percent(overlap.backward)},
      {"hidden total", percent(overlap.hideable_total), "of the hideable time; all: " + percent(overlap.total)},
      {"rank skew", fmt::format("{:.2f}", skew_ms), "ms of a step spent waiting for the other rank to launch"},
      {"waiting", fmt::format("{:.2f} -> {:.2f}", waited_blocking_ms, waited_overlapped_ms),
       fmt::format("ms a step, blocking -> overlapped, skew included; {:.1f} % of it hidden", 100 * waiting_hidden())},
      {"CPU time", fmt::format("{:.2f}", cpu_ms), "ms of this process in an overlapped step"}};
  return render_text(table) + "\n" + render_text(overlap, num_rounds);
}

BenchResult bench_train(const BenchOptions& options, RankContext& context) { return Bench(options, context).run(); }

}  // namespace farskip
