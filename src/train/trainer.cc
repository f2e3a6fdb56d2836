#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stats.h"
#include "config/checkpoint_folder.h"
#include "exec/profile.h"
#include "schedule/text.h"
#include "sim/exposure.h"
#include "sim/search.h"
#include "train/rank_times.h"
#include "train/run_log.h"
#include "train/signals.h"

namespace farskip {

namespace {

/// Steps of the paper's order whose times the search for a schedule is based on; the first are warm-up.
constexpr int num_warmup_steps = 2;
constexpr int num_profiled_steps = 4;

class Trainer {
 public:
  Trainer(const TrainConfig& config, const TrainData& data, RankContext& context)
      : config_(config),
        data_(data),
        context_(context),
        session_(config, context.world, samples_of(data.train, data.masked)),
        profile_(session_.graph()),
        searching_(config.schedule == "search"),
        schedule_(named_schedule(searching_ ? "paper" : config.schedule, session_.graph(), modelled_costs())) {
    summary_.connectivity = session_.model().connectivity.to_string();
    session_.set_vocabulary(data.vocabulary);
    if (resumes(config_)) resume();
    if (!config_.save.empty()) {
      watch_signals();
      writer_.emplace(config_.save, session_.layout(), context_.world.rank(), config_.keep_checkpoints,
                      config_.timeout);
      session_.communicators().world->barrier("checkpoints");
    }
    // Better now than after the last step.
    if (session_.is_first() && !config_.export_folder.empty()) create_parent_folders(config_.export_folder);
    if (session_.is_first()) log_.emplace(config_, first_iteration_, first_page());
  }

  TrainSummary run() {
    try {
      announce();
      const bool finished = run_steps();
      if (finished) finish();
      if (LiveReport* report = live_report()) {
        report->end(finished ? RunState::finished : RunState::stopped,
                    finished ? "" : "It goes on from its checkpoint with auto_resume=true.");
        log_info(fmt::format("report: {}", config_.report));
      }
    } catch (const std::exception& error) {
      if (LiveReport* report = live_report()) report->end(RunState::failed, error.what());
      throw;
    }
    return std::move(summary_);
  }

 private:
  /// False where it was asked to end before the last step.
  bool run_steps() {
    double since_log_us = 0;
    for (int64_t iteration = first_iteration_; iteration < config_.train_iters; ++iteration) {
      pass_signals_on();
      StepResult step = session_.step(iteration, schedule_);
      step.timeline.title = "measured: " + schedule_.name;
      const double step_ms = (step.end_us - step.begin_us) / 1e3;
      since_log_us += step.end_us - step.begin_us;
      if (std::isfinite(session_.stats().loss)) summary_.losses.emplace_back(iteration + 1, session_.stats().loss);
      rank_times_.add(step);
      if (log_) log_->step(record(iteration, step_ms), session_.stats(), session_.guard().reason());
      heed_guard(iteration);
      if ((iteration + 1) % config_.log_interval == 0) {
        print_line(iteration, since_log_us / 1e3 / static_cast<double>(config_.log_interval));
        report_ranks(iteration);
        since_log_us = 0;
      }
      if (searching_) profile(iteration, step);
      last_ = std::move(step);
      const bool last = iteration + 1 == config_.train_iters;
      if (data_.valid && (last || (config_.eval_interval > 0 && (iteration + 1) % config_.eval_interval == 0))) {
        validate_model(iteration + 1);
      }
      const bool end = session_.stats().end_requests > 0;
      const bool asked = end || session_.stats().save_requests > 0;
      if (writer_ && (last || asked || (config_.save_interval > 0 && (iteration + 1) % config_.save_interval == 0))) {
        save(iteration + 1, last || end);
      }
      if (end && !last) {
        if (session_.is_first())
          log_info(fmt::format("asked to end: saved iteration {}; auto_resume=true goes on from it", iteration + 1));
        return false;
      }
      if (LiveReport* report = live_report(); report && report->due()) renew(*report, iteration);
    }
    if (!config_.export_folder.empty()) {
      session_.export_model(config_.export_folder);
      if (session_.is_first()) log_info(fmt::format("model exported to {}", config_.export_folder));
    }
    return true;
  }

  LiveReport* live_report() { return log_ ? log_->report() : nullptr; }

  RunPage first_page() const {
    RunPage page;
    page.model = config_.model;
    page.connectivity = summary_.connectivity;
    page.layout = config_.layout;
    page.schedule = schedule_.name;
    page.recipe = train_recipe(config_);
    page.train_iters = config_.train_iters;
    return page;
  }

  /// Brings what the log's lines do not say up to date.
  void renew(LiveReport& report, int64_t iteration) {
    RunPage& page = report.page();
    page.schedule = schedule_.name;
    page.left_s = left_s(iteration);
    page.measured = last_.timeline;
    page.overlap = summarize(measure_overlap(page.measured, hint_));
    page.simulated = summary_.simulated;
    report.renew();
  }

  CostTable modelled_costs() const {
    Workload load;
    load.sequences = static_cast<double>(config_.micro_batch_size);
    load.seq_length = static_cast<double>(config_.seq_length);
    load.bytes_per_value = config_.dtype == TrainDtype::bf16 ? 2 : 4;
    return model_costs(session_.graph(), session_.model().config, machine("cpu"), load);
  }

  /// Goes on from a checkpoint, with its schedule where the ranks are as they were.
  void resume() {
    const double begin_s = monotonic_seconds();
    const TrainingState state = session_.restore(config_.load);
    first_iteration_ = state.iteration;
    if (state.extra.contains("guard")) session_.guard().from_json(state.extra["guard"]);
    if (searching_ && !state.schedule.empty()) {
      schedule_ = schedule_from_text(session_.graph(), state.schedule, config_.load);
      schedule_.name = "search (of the checkpoint)";
      searching_ = false;
    }
    if (!session_.is_first()) return;
    log_info(fmt::format("going on from iteration {} of {} (saved under {}), restored in {}", first_iteration_,
                         config_.load, state.layout, format_duration(monotonic_seconds() - begin_s)));
    if (first_iteration_ >= config_.train_iters)
      log_warning(fmt::format("nothing is left to do: train_iters={} steps are done", config_.train_iters));
  }

  void pass_signals_on() {
    if (!writer_) return;
    const SignalCounts now = signals_received();
    session_.request(now.save > signals_.save, now.end > signals_.end);
    signals_ = now;
  }

  /// The one being written, if any; a failure is told.
  void wait_for_checkpoint() {
    try {
      writer_->wait();
    } catch (const Error& error) {
      log_warning(error.what());
    }
  }

  /// A checkpoint that cannot be written does not end a run that has others to come; the last one does.
  void save(int64_t iteration, bool last) {
    const double begin_s = monotonic_seconds();
    wait_for_checkpoint();
    TrainingState state;
    state.iteration = iteration;
    state.consumed_samples = session_.position(iteration).consumed_samples;
    state.extra["guard"] = session_.guard().to_json();
    if (!searching_) state.schedule = to_text(session_.graph(), schedule_);
    session_.start_checkpoint(*writer_, state);
    if (last || !config_.async_save) {
      writer_->wait();
      session_.communicators().world->barrier("checkpoint");
    }
    if (!session_.is_first()) return;
    log_info(fmt::format("checkpoint of iteration {}: {} in {}; training waited {}", iteration,
                         last ? "written" : "begun", config_.save, format_duration(monotonic_seconds() - begin_s)));
    if (LiveReport* report = live_report()) report->page().last_saved = iteration;
  }

  void announce() {
    if (!session_.is_first()) return;
    if (config_.moe_router_force_load_balancing)
      log_warning(
          "moe_router_force_load_balancing: for benchmarks only, the router is ignored; do not keep this model");
    const ModelConfig& model = session_.model().config;
    log_info(fmt::format("{}: {} layers, {:.2f} M parameters ({:.2f} M active), connectivity {}", config_.model,
                         model.num_layers(), static_cast<double>(model.num_parameters()) / 1e6,
                         static_cast<double>(model.num_active_parameters()) / 1e6, summary_.connectivity));
    log_info(fmt::format("layout {}, {} microbatches of {} x {} tokens per rank and step, link {}", config_.layout,
                         config_.num_microbatches(), config_.micro_batch_size, config_.seq_length,
                         context_.link->spec().to_string()));
    if (LiveReport* report = live_report(); report && report->due()) {
      report->renew();
      log_info(fmt::format("report: {}, renewed every {}", config_.report, format_duration(config_.report_interval)));
    }
  }

  /// After a few steps of the paper's order the search has measured times to go by. No bit of the training changes.
  void profile(int64_t iteration, const StepResult& step) {
    if (session_.position(iteration).batch_size < config_.global_batch_size) return;  // times of another step
    if (iteration - first_iteration_ >= num_warmup_steps) profile_.add(step);
    if (profile_.num_steps() < num_profiled_steps) return;
    searching_ = false;
    costs_ = profile_.table(context_.link->spec(), *session_.communicators().world);
    const SearchResult found = search_schedule(session_.graph(), costs_);
    schedule_ = found.schedule;
    if (live_report()) simulate_step();
    if (session_.is_first()) {
      log_info(fmt::format("schedule: {}, {:.1f} ms a step in simulation (paper: {:.1f})", schedule_.name,
                           found.step_us / 1e3, found.candidates.front().step_us / 1e3));
    }
  }

  void validate_model(int64_t iteration) {
    const int64_t available = data_.valid->size();
    const int64_t samples = std::min(available, config_.eval_iters * config_.global_batch_size);
    const double loss = session_.evaluate(samples_of(data_.valid, data_.masked), samples);
    summary_.validation_losses.emplace_back(iteration, loss);
    if (!session_.is_first()) return;
    log_->validation(iteration, loss, samples);
    log_info(fmt::format("validation loss at iteration {}: {:.4f} | PPL: {:.3f} | {} samples", iteration, loss,
                         std::exp(loss), samples));
  }

  /// A skipped step is told; a run that has lost its way goes back to its last checkpoint, and on with the next batch.
  void heed_guard(int64_t iteration) {
    const StepStats& stats = session_.stats();
    const std::string& reason = session_.guard().reason();
    if (stats.verdict == Verdict::roll_back) return roll_back(iteration);
    if (stats.verdict == Verdict::apply && !std::isfinite(stats.loss))
      give_up(iteration, fmt::format("the loss is {}", stats.loss));
    if (stats.verdict == Verdict::skip && session_.is_first()) {
      log_warning(fmt::format("iteration {} changes nothing ({} so far): {}", iteration + 1,
                              session_.guard().num_skipped(), reason));
    }
  }

  [[noreturn]] void give_up(int64_t iteration, const std::string& reason) const {
    fail("iteration {}: {}; lower lr (now {}) or raise lr_warmup_iters (now {})", iteration + 1, reason, config_.lr,
         config_.lr_warmup_iters);
  }

  void roll_back(int64_t iteration) {
    const std::string reason = session_.guard().reason();
    if (writer_) wait_for_checkpoint();
    session_.communicators().world->barrier("roll back");
    if (config_.save.empty() || !is_checkpoint_root(config_.save))
      give_up(iteration, reason + ", and there is no checkpoint to go back to");
    const int64_t restored = session_.restore(config_.save).iteration;
    if (restored == rolled_back_to_)
      give_up(iteration, fmt::format("{}, again after going back to iteration {}", reason, restored));
    rolled_back_to_ = restored;
    session_.guard().rolled_back();
    if (!session_.is_first()) return;
    const std::string text =
        fmt::format("{}; weights and moments are again those of iteration {}, training goes on with the next batch",
                    reason, restored);
    log_warning(fmt::format("iteration {}: {}", iteration + 1, text));
    log_->event(iteration + 1, text);
  }

  void report_ranks(int64_t iteration) {
    const std::vector<double> ms_of_rank = rank_times_.gather(*session_.communicators().world);
    const std::vector<double> peaks = peak_memory_of_ranks(*session_.communicators().world);
    if (!session_.is_first()) return;
    log_->peak_memory(iteration + 1, peaks);
    log_->computing_ms(iteration + 1, ms_of_rank);
    if (const auto straggler = find_straggler(ms_of_rank)) log_warning(straggler->to_string());
  }

  StepRecord record(int64_t iteration, double step_ms) const {
    return {iteration + 1, session_.position(iteration), config_.seq_length, step_ms};
  }

  /// Until the last step, at the pace so far.
  double left_s(int64_t iteration) const {
    return (monotonic_seconds() - started_s_) / static_cast<double>(iteration + 1 - first_iteration_) *
           static_cast<double>(config_.train_iters - iteration - 1);
  }

  void print_line(int64_t iteration, double step_ms) {
    if (!session_.is_first()) return;
    const StepStats& stats = session_.stats();
    const StepRecord at = record(iteration, step_ms);
    std::printf(
        " iteration %8ld/%8ld | consumed samples: %12ld | elapsed time per iteration (ms): %.1f | "
        "tokens per second: %.0f | learning rate: %.6E | global batch size: %5ld | lm loss: %.6E | "
        "grad norm: %.3f | time left: %s |\n",
        static_cast<long>(iteration + 1), static_cast<long>(config_.train_iters),
        static_cast<long>(at.position.consumed_samples + at.position.batch_size), step_ms, at.tokens_per_second(),
        stats.lr, static_cast<long>(at.position.batch_size), stats.loss, stats.gradient_norm,
        format_duration(left_s(iteration)).c_str());
    std::fflush(stdout);
  }

  void finish() {
    if (summary_.losses.empty()) return;
    summary_.schedule = schedule_.name;
    summary_.load = session_.stats().load;
    summary_.measured = last_.timeline;
    if (costs_.us.empty()) {
      CostProfile profile(session_.graph());
      profile.add(last_);
      costs_ = profile.table(context_.link->spec(), *session_.communicators().world);
    }
    simulate_step();
    summary_.overlap = summarize(measure_overlap(last_.timeline, hint_));
    if (LiveReport* report = live_report()) {
      RunPage& page = report->page();
      page.schedule = summary_.schedule;
      page.measured = summary_.measured;
      page.simulated = summary_.simulated;
      page.overlap = summary_.overlap;
    }
  }

  /// What costs_ say of schedule_.
  void simulate_step() {
    hint_ = exposure_hint(session_.graph(), costs_, config_.schedule != "reference");
    summary_.simulated = simulate(session_.graph(), schedule_, costs_).timeline;
    summary_.simulated.title = "simulated: " + schedule_.name;
  }

  const double started_s_ = monotonic_seconds();
  const TrainConfig& config_;
  const TrainData& data_;
  RankContext& context_;
  TrainingSession session_;
  CostProfile profile_;
  bool searching_;
  Schedule schedule_;
  CostTable costs_;
  ExposureHint hint_;  ///< by costs_; null without
  StepResult last_;
  TrainSummary summary_;
  std::optional<RunLog> log_;  ///< on rank 0
  std::optional<CheckpointWriter> writer_;
  int64_t first_iteration_ = 0;  ///< steps done before this run
  int64_t rolled_back_to_ = -1;  ///< iteration of the checkpoint; -1: never
  SignalCounts signals_ = signals_received();
  RankTimes rank_times_;
};

}  // namespace

TrainSummary train(const TrainConfig& config, const TrainData& data, RankContext& context) {
  return Trainer(config, data, context).run();
}

}  // namespace farskip
