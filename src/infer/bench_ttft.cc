#include "infer/bench_ttft.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "exec/profile.h"
#include "infer/batch_run.h"
#include "infer/bench_check.h"
#include "sim/exposure.h"
#include "sim/search.h"
#include "transport/clock.h"

namespace farskip {

BenchRouting BenchRouting::parse(const std::string& text) {
  if (text == "balanced") return {};
  if (text == "real") return {.kind = Kind::real};
  if (text.starts_with("skewed=")) {
    char* end = nullptr;
    const double skew = std::strtod(text.c_str() + 7, &end);
    if (text.size() > 7 && *end == '\0' && skew >= 1) return {.kind = Kind::skewed, .skew = skew};
  }
  fail("routing '{}'; expected balanced, real or skewed=S, S the rows of the busiest rank over the mean (at least 1)",
       text);
}

std::string BenchRouting::to_string() const {
  if (kind == Kind::skewed) return fmt::format("skewed={:g}", skew);
  return kind == Kind::real ? "real" : "balanced";
}

std::optional<ForcedExperts> BenchRouting::experts(const ModelConfig& model, const Layout& layout) const {
  if (kind == Kind::real) return std::nullopt;
  ForcedExperts forced{.num_experts = model.num_experts, .top_k = model.top_k};
  if (kind == Kind::balanced || skew == 1) return forced;
  const int ranks = layout.expert_divisor(Phase::prefill);
  if (skew > ranks) {
    fail("routing {}: {} rank{} divide the experts, so the busiest has at most {} times the mean", to_string(), ranks,
         ranks == 1 ? "" : "s", ranks);
  }
  forced.share = (skew - 1) / (ranks - 1);
  forced.first_experts = model.num_experts / ranks;
  if (forced.first_experts < model.top_k) {
    fail("routing {}: a token visits {} experts, a rank has {}; use fewer ranks", to_string(), model.top_k,
         forced.first_experts);
  }
  return forced;
}

BatchRunOptions TtftOptions::run_options(const ModelConfig& config, int num_microbatches) const {
  return {.num_sequences = batch,
          .num_tokens = input + output,
          .num_microbatches = num_microbatches,
          .experts = routing.experts(config, layout)};
}

namespace {

/// One phase of a mode while it is measured.
struct PhaseData {
  explicit PhaseData(const StageGraph& graph) : profile(graph) {}
  Schedule schedule;
  CostTable costs;  ///< by which it was chosen
  ExposureHint hint;
  CostProfile profile;                  ///< of the steps with a free link, or of all where there is no other
  std::vector<double> times, computes;  ///< ms, one entry a round
  std::vector<CollectiveTiming> timings;
  std::vector<double> hidden;  ///< of each step
  double waited_us = 0, skew_us = 0, process_ms = 0, thread_ms = 0;
  int num_steps = 0;
  Timeline last;
};

/// All modes of one connectivity and number of microbatches share weights, cache and graph.
struct Lane {
  Lane(const InferenceModel& all, const BenchMode& mode, const TtftOptions& options, const Communicators& communicators)
      : model(all.with(Connectivity::parse(mode.connectivity, all.config().num_layers()))),
        run(model, communicators, options.run_options(all.config(), mode.num_microbatches())),
        prefill(graph()),
        decode(graph()) {}
  const StageGraph& graph() { return run.decoder().graph(); }
  InferenceModel model;
  BatchRun run;
  CostProfile prefill, decode;  ///< of the calibration
  std::vector<double> blocking_us;
  LinkUse use;
};

struct Entry {
  Entry(const BenchMode& m, Lane& l) : mode(m), lane(l), prefill(l.graph()), decode(l.graph()) {}
  BenchMode mode;
  Lane& lane;
  PhaseData prefill, decode;
};

class TtftBench {
 public:
  TtftBench(const TtftOptions& options, World& world, Link& link)
      : options_(options),
        link_(link),
        communicators_(Communicators::make(world, options.layout)),
        world_(*communicators_.world),
        model_(load_bench_model(options, options.layout, world.rank())),
        prompts_(random_prompts(options.batch, options.input, model_.config().vocab_size, options.seed)) {
    for (const BenchMode& mode : options.modes) {
      auto& lane = lanes_[{mode.connectivity, mode.num_microbatches()}];
      if (!lane) lane = std::make_unique<Lane>(model_, mode, options, communicators_);
      entries_.push_back(std::make_unique<Entry>(mode, *lane));
    }
  }

  TtftResult run() {
    result_.options = options_;
    result_.machine =
        fmt::format("{} rank{} with {} thread{} each, {}", world_.size(), world_.size() == 1 ? "" : "s",
                    at::get_num_threads(), at::get_num_threads() == 1 ? "" : "s", c10::toString(model_.dtype()));
    result_.checked = check_across(options_, model_, communicators_);
    calibrate();
    for (auto& entry : entries_) choose_schedules(*entry);
    check_bits();
    measure();
    for (auto& entry : entries_) {
      result_.modes.push_back({entry->mode, figures(*entry, true), figures(*entry, false)});
    }
    return std::move(result_);
  }

 private:
  struct Timed {
    double ms;
    StepResult step;
  };

  Timed timed_step(BatchRun& run) {
    const double begin = now_us();
    run.step();
    return {(now_us() - begin) / 1e3, run.decoder().last()};
  }

  /// Blocking steps with a free link: stage costs of each graph; then the link for the wanted share.
  void calibrate() {
    const int warm_up = std::max(1, options_.num_calibration_steps / 4);
    for (auto& [key, lane] : lanes_) {
      lane->run.decoder().set_schedule(reference_schedule(lane->graph()));
      for (int i = 0; i < options_.num_calibration_steps; ++i) {
        world_.barrier();
        link_.set_spec({});
        lane->run.start(prompts_);
        const StepResult step = timed_step(lane->run).step;
        for (int64_t token = 1; token < std::min<int64_t>(4, options_.output); ++token) {
          const StepResult decoded = timed_step(lane->run).step;
          if (i >= warm_up) lane->decode.add(decoded);
        }
        if (i < warm_up) continue;
        lane->prefill.add(step);
        lane->blocking_us.push_back(step.end_us - step.begin_us);
        if (i + 1 == options_.num_calibration_steps) lane->use = LinkUse::of(lane->graph(), step);
      }
    }
    auto found = lanes_.find({"farskip", 1});
    if (found == lanes_.end()) found = lanes_.find({options_.modes.front().connectivity, 1});
    if (found == lanes_.end()) found = lanes_.begin();
    result_.share_of = found->first.first;
    LinkUse use = found->second->use;
    use.bytes = mean_over_ranks(world_, use.bytes);
    spec_ = link_for(options_.link, mean_over_ranks(world_, median(found->second->blocking_us)), use);
    result_.link = spec_;
  }

  void choose_schedules(Entry& entry) {
    const StageGraph& graph = entry.lane.graph();
    auto choose = [&](PhaseData& phase, const CostProfile& profile) {
      if (profile.num_steps() == 0) {  // one token is made: there are no decode steps
        phase.schedule = reference_schedule(graph);
        return;
      }
      phase.costs = profile.table(spec_, world_);
      phase.schedule = entry.mode.schedule(graph, phase.costs);
      phase.hint = exposure_hint(graph, phase.costs, entry.mode.order != BenchOrder::blocking);
    };
    choose(entry.prefill, entry.lane.prefill);
    choose(entry.decode, entry.lane.decode);
  }

  /// Within a connectivity and number of microbatches: the same bits in every order, with the link that is measured.
  void check_bits() {
    link_.set_spec(spec_);
    const int num_steps = static_cast<int>(std::min<int64_t>(num_checked_steps, options_.output));
    for (auto& [key, lane] : lanes_) {
      const Schedule reference = reference_schedule(lane->graph());
      const BatchAnswer expected = answer_of(lane->run, prompts_, num_steps, reference, reference);
      for (auto& entry : entries_) {
        if (&entry->lane != lane.get() || entry->mode.order == BenchOrder::blocking) continue;
        check_same_bits(expected,
                        answer_of(lane->run, prompts_, num_steps, entry->prefill.schedule, entry->decode.schedule),
                        "mode " + entry->mode.name);
        result_.checked.push_back(
            fmt::format("{}: logits of {} steps have the bits of the blocking order", entry->mode.name, num_steps));
      }
      tokens_[lane.get()] = expected.tokens.front();
    }
  }

  void measure() {
    const bool emulated = !spec_.off();
    const size_t num = entries_.size();
    for (int round = 0; round < options_.num_rounds; ++round) {
      for (size_t turn = 0; turn < num; ++turn) {
        Entry& entry = *entries_[(turn + round) % num];
        run_batch(entry, spec_, !emulated);
        if (emulated) run_batch(entry, {}, true);
      }
      if (world_.rank() == 0 && (round + 1) % 10 == 0)
        log_info(fmt::format("round {} of {}", round + 1, options_.num_rounds));
    }
    for (auto& entry : entries_) {
      for (PhaseData* phase : {&entry->prefill, &entry->decode}) {
        for (auto* times : {&phase->times, &phase->computes})
          if (!times->empty()) *times = slowest_rank(world_, *times);
      }
    }
  }

  /// `free`: stage costs are taken from this run.
  void run_batch(Entry& entry, const LinkSpec& link, bool free) {
    BatchRun& run = entry.lane.run;
    const bool is_timed = free == spec_.off();
    run.start(prompts_);
    run.decoder().set_schedule(entry.prefill.schedule);
    phase_begins(link);
    double process_ms = process_cpu_ms(), thread_ms = thread_cpu_ms();
    Timed first = timed_step(run);
    if (is_timed) add_cpu(entry.prefill, process_ms, thread_ms);
    if (run.tokens() != tokens_.at(&entry.lane))
      fail("mode {}: other first tokens than when it was checked", entry.mode.name);
    std::vector<StepResult> decoded;
    double decode_ms = 0;
    run.decoder().set_schedule(entry.decode.schedule);
    phase_begins(link);
    process_ms = process_cpu_ms(), thread_ms = thread_cpu_ms();
    for (int64_t token = 1; token < options_.output; ++token) {
      Timed next = timed_step(run);
      decode_ms += next.ms;
      decoded.push_back(std::move(next.step));
    }
    if (is_timed && !decoded.empty()) add_cpu(entry.decode, process_ms, thread_ms);
    (is_timed ? entry.prefill.times : entry.prefill.computes).push_back(first.ms);
    if (!decoded.empty())
      (is_timed ? entry.decode.times : entry.decode.computes)
          .push_back(decode_ms / static_cast<double>(decoded.size()));
    if (free) {
      entry.prefill.profile.add(first.step);
      for (const StepResult& step : decoded) entry.decode.profile.add(step);
    }
    if (!is_timed) return;
    add_overlap(entry.prefill, first.step);
    for (StepResult& step : decoded) add_overlap(entry.decode, step);
  }

  void phase_begins(const LinkSpec& link) {
    world_.barrier();
    link_.set_spec(link);
  }

  static void add_cpu(PhaseData& phase, double process_before_ms, double thread_before_ms) {
    phase.process_ms += process_cpu_ms() - process_before_ms;
    phase.thread_ms += thread_cpu_ms() - thread_before_ms;
  }

  static void add_overlap(PhaseData& phase, StepResult& step) {
    const auto timings = measure_overlap(step.timeline, phase.hint);
    phase.hidden.push_back(summarize(timings).hideable_total.hidden());
    phase.timings.insert(phase.timings.end(), timings.begin(), timings.end());
    for (const auto& report : step.reports) phase.waited_us += report.waited_us;
    for (const Span& span : step.timeline.spans)
      if (span.kind == SpanKind::skew) phase.skew_us += span.end_us - span.begin_us;
    ++phase.num_steps;
    phase.last = std::move(step.timeline);
  }

  /// A figure of two modes' times, with its interval: rounds are drawn together.
  template <typename Formula>
  Estimate figure(const std::vector<double>& a, const std::vector<double>& b, Formula formula) const {
    return bootstrap_interval(std::ssize(a), [&](const std::vector<int64_t>& chosen) {
      std::vector<double> x, y;
      for (int64_t i : chosen) x.push_back(a[i]), y.push_back(b[i]);
      return formula(median(x), median(y));
    });
  }

  const PhaseData* blocking(const std::string& connectivity, bool prefill) const {
    const int i = find_blocking(options_.modes, connectivity);
    return i < 0 ? nullptr : prefill ? &entries_[i]->prefill : &entries_[i]->decode;
  }

  PhaseFigures figures(const Entry& entry, bool prefill) {
    const PhaseData& data = prefill ? entry.prefill : entry.decode;
    const StageGraph& graph = entry.lane.graph();
    PhaseFigures result;
    result.schedule = data.schedule.name;
    result.schedule_hash = hash(graph, data.schedule);
    if (data.times.empty()) return result;
    result.time = median_interval(data.times);
    if (!data.computes.empty()) result.compute = median_interval(data.computes);
    const CostTable costs = data.profile.table(spec_, world_);
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      if (!graph.node(id).is_collective()) continue;
      CollectiveTiming named;
      named.name = graph.name(id);
      const Exposure reason = data.hint(named);
      result.comm += costs.us[id] / 1e3;
      if (reason != Exposure::first_or_last_layer && reason != Exposure::nothing_beside_it) continue;
      result.unhideable += costs.us[id] / 1e3;
      result.unhideable_names.push_back(graph.name(id));
    }
    const PhaseData* own = blocking(entry.mode.connectivity, prefill);
    const PhaseData* standard = blocking("standard", prefill);
    auto ratio = [](double a, double b) { return a / b; };
    if (own != nullptr) result.speedup_blocking = figure(own->times, data.times, ratio);
    if (own != nullptr) result.saved_blocking = paired_difference(own->times, data.times);
    if (standard != nullptr) result.speedup_standard = figure(standard->times, data.times, ratio);
    if (standard != nullptr) result.saved_standard = paired_difference(standard->times, data.times);
    const double blocking_ms =
        own != nullptr ? median(own->times) : result.comm + (data.computes.empty() ? 0 : result.compute.value);
    result.share = result.comm / blocking_ms;
    result.ideal = 1 / (1 - result.share);
    result.possible = blocking_ms / (blocking_ms - result.comm + result.unhideable);
    result.hidden = median_interval(data.hidden);
    result.overlap = summarize(data.timings);
    std::vector<CollectiveTiming> hideable;
    std::copy_if(data.timings.begin(), data.timings.end(), std::back_inserter(hideable),
                 [](auto& t) { return t.hideable; });
    result.hideable = summarize(hideable);
    result.num_steps = data.num_steps;
    plan(graph, data, costs, result);
    result.efficiency = figure(data.times, data.times, [&](double ms, double) { return result.bound / ms; });
    const double steps = data.num_steps;
    result.waited = mean_over_ranks(world_, data.waited_us / 1e3 / steps);
    result.skew = mean_over_ranks(world_, data.skew_us / 1e3 / steps);
    result.cpu = mean_over_ranks(world_, data.process_ms / steps / ranks_of_this_process(world_));
    result.transport_cpu = result.cpu - mean_over_ranks(world_, data.thread_ms / steps);
    result.measured = data.last;
    result.measured.title = entry.mode.name + ", measured";
    return result;
  }

  /// What simulation says with the stage costs of the measured steps.
  void plan(const StageGraph& graph, const PhaseData& data, const CostTable& costs, PhaseFigures& result) const {
    Simulation planned = simulate(graph, data.schedule, costs);
    double fastest_us = planned.step_us;
    for (const auto& candidate : search_schedule(graph, costs).candidates)
      fastest_us = std::min(fastest_us, candidate.step_us);
    result.bound = std::max(fastest_us, lane_bound_us(graph, costs)) / 1e3;
    result.simulated = std::move(planned.timeline);
    result.simulated.title = "simulated: " + data.schedule.name;
  }

  const TtftOptions& options_;
  Link& link_;
  Communicators communicators_;
  Transport& world_;
  InferenceModel model_;
  std::vector<std::vector<int32_t>> prompts_;
  std::map<std::pair<std::string, int>, std::unique_ptr<Lane>> lanes_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::map<const Lane*, std::vector<int32_t>> tokens_;  ///< the first ones, as checked
  LinkSpec spec_;
  TtftResult result_;
};

}  // namespace

TtftResult bench_ttft(const TtftOptions& options, World& world, Link& link) {
  if (options.modes.empty() || options.batch < 1 || options.input < 1 || options.output < 1 || options.num_rounds < 1)
    fail("a benchmark needs modes, sequences, tokens and rounds; each must be at least 1");
  const int64_t longest = load_model_config(options.model).max_position_embeddings;
  if (options.input + options.output > longest) {
    fail("{} tokens read and {} made are more than the {} positions of {}", options.input, options.output, longest,
         options.model);
  }
  return TtftBench(options, world, link).run();
}

}  // namespace farskip
