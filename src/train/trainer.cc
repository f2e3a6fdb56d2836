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
#include "model/fingerprint.h"
#include "schedule/text.h"
#include "train/distill_result.h"
#include "train/held_out.h"
#include "train/rank_times.h"
#include "train/run_log.h"
#include "train/schedule_choice.h"
#include "train/signals.h"
#include "train/teacher.h"

namespace farskip {

namespace {

class Trainer {
 public:
  Trainer(const TrainConfig& config, const TrainData& data, RankContext& context)
      : config_(config),
        data_(data),
        context_(context),
        session_(config, context.world, train_samples(data), data.calibration_tokens),
        choice_(config, session_, context.link->spec()) {
    summary_.connectivity = session_.model().connectivity.to_string();
    session_.set_vocabulary(data.vocabulary);
    if (config_.distill.patience > 0 && !data_.valid)
      fail("patience={}, but split={} leaves nothing to validate on", config_.distill.patience, config_.split);
    if (config_.distill.wanted() && data_.valid) watch_.emplace(config_, session_);
    const bool part_of_a_run = resumes(config_) || !config_.save.empty();
    if (part_of_a_run && config_.distill.wanted() &&
        config_.distill.teacher_cache.empty())  // a cache has its own check
      teacher_ = checkpoint_fingerprint(resolve_model_folder(teacher_folder(config_)));
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
    int64_t steps_since_log = 0;
    if (watch_ && first_iteration_ == 0) validate_model(0);
    for (int64_t iteration = first_iteration_; iteration < config_.train_iters; ++iteration) {
      if (stops_early()) break;
      pass_signals_on();
      StepResult step = session_.step(iteration, choice_.schedule());
      step.timeline.title = "measured: " + choice_.schedule().name;
      const double step_ms = (step.end_us - step.begin_us) / 1e3;
      since_log_us += step.end_us - step.begin_us;
      ++steps_since_log;
      if (std::isfinite(session_.stats().loss)) summary_.losses.emplace_back(iteration + 1, session_.stats().loss);
      rank_times_.add(step);
      if (log_) log_->step(record(iteration, step_ms), session_.stats(), session_.guard().reason());
      heed_guard(iteration);
      if ((iteration + 1) % config_.log_interval == 0) {
        print_line(iteration, since_log_us / 1e3 / static_cast<double>(steps_since_log));
        report_ranks(iteration);
        since_log_us = 0, steps_since_log = 0;
      }
      search(iteration, step);
      last_ = std::move(step);
      steps_done_ = iteration + 1;
      const bool last = iteration + 1 == config_.train_iters;
      if (data_.valid && (last || (config_.eval_interval > 0 && (iteration + 1) % config_.eval_interval == 0))) {
        validate_model(iteration + 1);
      }
      const bool enough = stops_early();
      const bool end = session_.stats().end_requests > 0;
      const bool asked = end || session_.stats().save_requests > 0;
      if (writer_ && (last || asked || (config_.save_interval > 0 && (iteration + 1) % config_.save_interval == 0))) {
        save(iteration + 1, last || end);
      } else if (writer_ && enough) {
        save(iteration + 1, true);
      }
      if (end && !last && !enough) {
        if (session_.is_first())
          log_info(fmt::format("asked to end: saved iteration {}; auto_resume=true goes on from it", iteration + 1));
        return false;
      }
      if (LiveReport* report = live_report(); report && report->due()) renew(*report, iteration);
    }
    export_model();
    return true;
  }

  bool stops_early() const { return watch_ && watch_->over_patience(); }

  /// The last weights, or those of the best held-out KL.
  void export_model() {
    if (config_.export_folder.empty()) return;
    std::string which;
    if (watch_ && watch_->keeps_weights()) {
      watch_->bring_back();
      which = fmt::format(", of iteration {}, whose KL held out is the lowest ({:.4f})", watch_->best_iteration(),
                          watch_->best_kl());
    }
    session_.export_model(config_.export_folder);
    if (session_.is_first()) log_info(fmt::format("model exported to {}{}", config_.export_folder, which));
  }

  LiveReport* live_report() { return log_ ? log_->report() : nullptr; }

  RunPage first_page() const {
    RunPage page;
    if (config_.distill.wanted()) page.command = "distill";
    page.model = config_.model;
    page.connectivity = summary_.connectivity;
    page.layout = config_.layout;
    page.schedule = choice_.schedule().name;
    page.recipe = train_recipe(config_);
    page.train_iters = config_.train_iters;
    return page;
  }

  /// Brings what the log's lines do not say up to date.
  void renew(LiveReport& report, int64_t iteration) {
    RunPage& page = report.page();
    page.schedule = choice_.schedule().name;
    page.left_s = left_s(iteration);
    page.measured = last_.timeline;
    page.overlap = summarize(measure_overlap(page.measured, choice_.hint()));
    page.simulated = summary_.simulated;
    report.renew();
  }

  /// Goes on from a checkpoint, with its schedule where the ranks are as they were.
  void resume() {
    const double begin_s = monotonic_seconds();
    const TrainingState state = session_.restore(config_.load);
    first_iteration_ = steps_done_ = state.iteration;
    if (!teacher_.empty() && state.extra.value("teacher", teacher_) != teacher_) {
      fail(
          "{}: its student was taught by other weights than those of teacher={} (fingerprints {}, {}); name the "
          "teacher of the run, or begin another run in another folder",
          config_.load, teacher_folder(config_), state.extra["teacher"].get<std::string>().substr(0, 12),
          teacher_.substr(0, 12));
    }
    if (state.extra.contains("guard")) session_.guard().from_json(state.extra["guard"]);
    if (watch_ && state.extra.contains("held_out")) watch_->from_json(state.extra["held_out"]);
    choice_.restore(state.schedule, config_.load);
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
    if (watch_) state.extra["held_out"] = watch_->to_json();
    if (!teacher_.empty()) state.extra["teacher"] = teacher_;
    if (!choice_.searching()) state.schedule = to_text(session_.graph(), choice_.schedule());
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
    if (const auto& teacher = session_.model().teacher) {
      const std::string& reason = session_.model().reason;
      log_info(fmt::format("teacher: {}, connectivity {}; student: {}{}", config_.distill.teacher,
                           teacher->connectivity.to_string(), summary_.connectivity,
                           reason.empty() ? "" : fmt::format(" ({})", reason)));
    }
    log_info(fmt::format("layout {}, {} microbatches of {} x {} tokens per rank and step, link {}", config_.layout,
                         config_.num_microbatches(), config_.micro_batch_size, config_.seq_length,
                         context_.link->spec().to_string()));
    if (LiveReport* report = live_report(); report && report->due()) {
      report->renew();
      log_info(fmt::format("report: {}, renewed every {}", config_.report, format_duration(config_.report_interval)));
    }
  }

  void search(int64_t iteration, const StepResult& step) {
    if (session_.position(iteration).batch_size < config_.global_batch_size) return;  // times of another step
    if (!choice_.observe(step, iteration - first_iteration_)) return;
    if (live_report()) summary_.simulated = choice_.simulated();
    if (session_.is_first()) log_info(choice_.found());
  }

  void validate_model(int64_t iteration) {
    const int64_t samples = num_evaluated(config_, data_);
    const Evaluation evaluation = session_.evaluate(valid_samples(data_), samples);
    const double loss = evaluation.loss;
    summary_.validation_losses.emplace_back(iteration, loss);
    if (watch_) {
      watch_->heed(iteration, *evaluation.distill);
      summary_.held_out = watch_->figures();
    }
    if (!session_.is_first()) return;
    log_->validation(iteration, evaluation, samples);
    log_info(fmt::format("validation loss at iteration {}: {:.4f} | PPL: {:.3f} | {}{} samples", iteration, loss,
                         std::exp(loss), evaluation.distill ? held_out_text(*evaluation.distill) : "", samples));
    if (stops_early()) {
      const std::string text =
          fmt::format("the KL held out has not fallen below {:.4f} (iteration {}) in {} evaluations: this is the end",
                      watch_->best_kl(), watch_->best_iteration(), config_.distill.patience);
      log_info(text);
      log_->event(iteration, text);
    }
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

  [[noreturn]] void give_up(int64_t iteration, const std::string& reason) {
    if (watch_ && watch_->keeps_weights()) export_model();
    fail("iteration {}: {}; lower lr (now {}) or raise lr_warmup_iters (now {})", iteration + 1, reason, config_.lr,
         config_.lr_warmup_iters);
  }

  void roll_back(int64_t iteration) {
    const std::string reason = session_.guard().reason();
    if (writer_) wait_for_checkpoint();
    session_.communicators().world->barrier("roll back");
    const bool saved = !config_.save.empty() && is_checkpoint_root(config_.save);
    if (!saved && !(watch_ && watch_->can_begin_anew()))
      give_up(iteration, reason + ", and there is no checkpoint to go back to");
    const int64_t restored = saved ? session_.restore(config_.save).iteration : begin_anew();
    if (restored == rolled_back_to_)
      give_up(iteration, fmt::format("{}, again after going back to iteration {}", reason, restored));
    rolled_back_to_ = restored;
    session_.guard().rolled_back();
    if (!session_.is_first()) return;
    const std::string text =
        fmt::format("{}; weights{} are again those of iteration {}, training goes on with the next batch", reason,
                    saved ? " and moments" : "", restored);
    log_warning(fmt::format("iteration {}: {}", iteration + 1, text));
    log_->event(iteration + 1, text);
  }

  /// From the best weights in memory, without moments. Returns their iteration.
  int64_t begin_anew() {
    watch_->bring_back();
    session_.optimizer().forget();
    return watch_->best_iteration();
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
    std::printf(
        "%s\n",
        step_text(record(iteration, step_ms), session_.stats(), config_.train_iters, left_s(iteration)).c_str());
    std::fflush(stdout);
  }

  void finish() {
    if (session_.is_first() && !config_.distill.result.empty()) {
      write_distill_result(
          config_, session_,
          {steps_done_, stops_early(), monotonic_seconds() - started_s_, watch_ ? watch_->figures() : nullptr});
    }
    if (summary_.losses.empty()) return;
    summary_.schedule = choice_.schedule().name;
    summary_.load = session_.stats().load;
    summary_.measured = last_.timeline;
    choice_.measure(last_);
    summary_.simulated = choice_.simulated();
    summary_.overlap = summarize(measure_overlap(last_.timeline, choice_.hint()));
    if (LiveReport* report = live_report()) {
      RunPage& page = report->page();
      page.schedule = summary_.schedule;
      page.measured = summary_.measured;
      page.simulated = summary_.simulated;
      page.overlap = summary_.overlap;
    }
  }

  const double started_s_ = monotonic_seconds();
  const TrainConfig& config_;
  const TrainData& data_;
  RankContext& context_;
  TrainingSession session_;
  ScheduleChoice choice_;
  StepResult last_;
  TrainSummary summary_;
  std::optional<RunLog> log_;          ///< on rank 0
  std::optional<HeldOutWatch> watch_;  ///< of a distillation with validation data
  std::optional<CheckpointWriter> writer_;
  std::string teacher_;          ///< fingerprint, where a teacher runs beside the student
  int64_t steps_done_ = 0;       ///< runs before this one included
  int64_t first_iteration_ = 0;  ///< steps done before this run
  int64_t rolled_back_to_ = -1;  ///< iteration of the checkpoint; -1: never
  SignalCounts signals_ = signals_received();
  RankTimes rank_times_;
};

}  // namespace

TrainSummary train(const TrainConfig& config, const TrainData& data, RankContext& context) {
  const TrainData cached = with_cache(config, data, context);
  return Trainer(config, cached, context).run();
}

}  // namespace farskip
