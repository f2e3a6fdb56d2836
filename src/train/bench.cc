#include "train/bench.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "exec/profile.h"
#include "sim/exposure.h"
#include "sim/search.h"

namespace farskip {

namespace {

enum Mode { blocking, overlapped, compute };
constexpr int num_modes = 3;

class Bench {
 public:
  Bench(const BenchOptions& options, RankContext& context)
      : options_(options),
        context_(context),
        session_(make_session()),
        world_(*session_.communicators().world),
        reference_(reference_schedule(session_.graph())),
        profile_(session_.graph()),
        measured_(session_.graph()) {}

  BenchResult run() {
    calibrate();
    choose_schedule();
    check_bits();
    measure();
    plan();
    return std::move(result_);
  }

 private:
  TrainingSession make_session() {
    const auto& config = options_.config;
    if (options_.samples) return TrainingSession(config, context_.world, options_.samples);
    const auto vocab = TrainingModel::load(config).config.vocab_size;
    return TrainingSession(config, context_.world, synthetic_samples(config.seq_length, vocab, 7));
  }

  StepResult timed_step(const Schedule& schedule, const LinkSpec& link) {
    world_.barrier();
    context_.link->set_spec(link);
    return session_.step(iteration_++, schedule);
  }

  /// Warm-up and profile with a free link; finds the link for the wanted share.
  void calibrate() {
    std::vector<double> times;
    LinkUse use;
    for (int i = 0; i < 40; ++i) {
      const StepResult step = timed_step(reference_, {});
      if (i < 8) continue;
      profile_.add(step);
      times.push_back(step.end_us - step.begin_us);
      use = LinkUse::of(session_.graph(), step);
    }
    use.bytes = mean_over_ranks(world_, use.bytes);
    link_ = link_for(options_.link, mean_over_ranks(world_, median(times)), use);
    result_.link_spec = link_;
    result_.link = link_.to_string();
  }

  void choose_schedule() {
    costs_ = profile_.table(link_, world_);
    schedule_ = named_schedule(options_.config.schedule, session_.graph(), costs_);
    result_.schedule = schedule_.name;
    result_.schedule_hash = hash(session_.graph(), schedule_);
  }

  /// What simulation says with the stage costs of the measured compute steps: the machine may have changed its pace
  /// since the schedule was chosen.
  void plan() {
    const StageGraph& graph = session_.graph();
    const CostTable costs = measured_.table(link_, world_);
    const SearchResult found = search_schedule(graph, costs);
    for (const auto& candidate : found.candidates)
      result_.candidates.emplace_back(candidate.name, candidate.step_us / 1e3);
    const Simulation planned = simulate(graph, schedule_, costs);
    result_.simulated = planned.timeline;
    result_.simulated.title = "simulated: " + schedule_.name;
    result_.simulated_overlapped_ms = planned.step_us / 1e3;
    result_.simulated_blocking_ms = simulate(graph, reference_, costs).step_us / 1e3;
    result_.simulated_overlap = summarize(measure_overlap(planned.timeline, exposure_hint(graph, costs)));
    double fastest_us = planned.step_us;
    for (const auto& candidate : found.candidates) fastest_us = std::min(fastest_us, candidate.step_us);
    result_.bound_ms = std::max(fastest_us, lane_bound_us(graph, costs)) / 1e3;
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      const Node& node = graph.node(id);
      if (node.is_collective()) {
        result_.t_comm_ms += costs.us[id] / 1e3;
      } else {
        result_.stage_ms[fmt::format("{}.{}", to_string(node.pass), to_string(node.stage))] += costs.us[id] / 1e3;
      }
    }
    const auto& config = options_.config;
    const double tokens = static_cast<double>(config.micro_batch_size * config.num_microbatches() * config.seq_length);
    result_.profile = profile_step(graph, costs, session_.model().config, config.seq_length, tokens,
                                   result_.t_compute_ms.value, session_.math().dtype());
    result_.share = result_.t_comm_ms / result_.t_blocking_ms.value;
    result_.efficiency = figure([&](auto&& t) { return result_.bound_ms / t(overlapped); });
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
      if (!at::equal(a.parameters().stored(id), b.parameters().stored(id))) {
        fail("{} differs between blocking and overlapped steps", a.parameters().table()[id].name);
      }
    }
  }

  void measure() {
    std::vector<CollectiveTiming> timings;
    std::vector<double> hidden_forward, hidden_backward, hidden_total;
    double skew_us = 0, process_ms = 0, thread_ms = 0;
    double waited_ms[num_modes] = {};
    const auto hint = exposure_hint(session_.graph(), costs_, options_.config.schedule != "reference");
    for (int round = 0; round < options_.num_rounds; ++round) {
      for (int turn = 0; turn < num_modes; ++turn) {
        const auto mode = static_cast<Mode>((turn + round) % num_modes);
        const double process_before_ms = process_cpu_ms(), thread_before_ms = thread_cpu_ms();
        StepResult step = timed_step(mode == blocking ? reference_ : schedule_, mode == compute ? LinkSpec{} : link_);
        times_[mode].push_back((step.end_us - step.begin_us) / 1e3);
        for (const auto& report : step.reports) waited_ms[mode] += report.waited_us / 1e3 / options_.num_rounds;
        if (mode == compute) measured_.add(step);
        if (mode != overlapped) continue;
        process_ms += (process_cpu_ms() - process_before_ms) / options_.num_rounds;
        thread_ms += (thread_cpu_ms() - thread_before_ms) / options_.num_rounds;
        for (const Span& span : step.timeline.spans) {
          if (span.kind == SpanKind::skew) skew_us += (span.end_us - span.begin_us) / options_.num_rounds;
        }
        const auto measured = measure_overlap(step.timeline, hint);
        timings.insert(timings.end(), measured.begin(), measured.end());
        const OverlapSummary summary = summarize(measured);
        hidden_forward.push_back(summary.hideable_forward.hidden());
        hidden_backward.push_back(summary.hideable_backward.hidden());
        hidden_total.push_back(summary.hideable_total.hidden());
        result_.measured = std::move(step.timeline);
      }
      if (world_.rank() == 0 && (round + 1) % 20 == 0)
        log_info(fmt::format("round {} of {}", round + 1, options_.num_rounds));
    }
    result_.measured.title = "measured: " + schedule_.name;
    result_.skew_ms = skew_us / 1e3;
    result_.cpu_ms = mean_over_ranks(world_, process_ms / ranks_of_this_process(world_));
    result_.transport_cpu_ms = result_.cpu_ms - mean_over_ranks(world_, thread_ms);
    result_.waited_blocking_ms = mean_over_ranks(world_, waited_ms[blocking]);
    result_.waited_overlapped_ms = mean_over_ranks(world_, waited_ms[overlapped]);
    result_.overlap = summarize(timings);
    result_.num_rounds = options_.num_rounds;
    result_.hidden_forward = median_interval(hidden_forward);
    result_.hidden_backward = median_interval(hidden_backward);
    result_.hidden_total = median_interval(hidden_total);
    for (auto& mode : times_) mode = slowest_rank(world_, mode);
    result_.t_blocking_ms = median_interval(times_[blocking]);
    result_.t_overlapped_ms = median_interval(times_[overlapped]);
    result_.t_compute_ms = median_interval(times_[compute]);
    result_.saved = figure([](auto&& t) { return (t(blocking) - t(overlapped)) / (t(blocking) - t(compute)); });
    result_.speedup = figure([](auto&& t) { return t(blocking) / t(overlapped); });
  }

  /// A figure of the modes' median times, with its interval.
  template <typename Formula>
  Estimate figure(Formula formula) const {
    return bootstrap_interval(options_.num_rounds, [&](const std::vector<int64_t>& chosen) {
      return formula([&](Mode mode) {
        std::vector<double> values;
        for (int64_t i : chosen) values.push_back(times_[mode][i]);
        return median(values);
      });
    });
  }

  const BenchOptions& options_;
  RankContext& context_;
  TrainingSession session_;
  Transport& world_;
  Schedule reference_, schedule_;
  CostProfile profile_;   ///< blocking steps before the schedule is chosen
  CostProfile measured_;  ///< the measured compute steps
  CostTable costs_;
  std::vector<double> times_[num_modes];  ///< ms, one entry a round
  LinkSpec link_;
  int64_t iteration_ = 0;
  BenchResult result_;
};

}  // namespace

BenchResult bench_train(const BenchOptions& options, RankContext& context) { return Bench(options, context).run(); }

}  // namespace farskip
