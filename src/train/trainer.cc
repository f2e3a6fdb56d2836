#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stats.h"
#include "exec/profile.h"
#include "sim/exposure.h"
#include "sim/search.h"

namespace farskip {

TrainData TrainData::open(const TrainConfig& config, int64_t vocab_size) {
  if (config.data_path.empty()) {
    fail(
        "data_path is not set; make a data set with `farskip prepare TEXT -o PREFIX` and give "
        "data_path=PREFIX_text_document");
  }
  const auto data = std::make_shared<const IndexedDataset>(config.data_path);
  const DatasetSplit split = split_sequences(config.split, data->num_sequences());
  TrainData result;
  GptDatasetOptions options;
  options.seq_length = config.seq_length;
  options.num_samples = config.train_iters * config.global_batch_size;
  options.seed = static_cast<uint64_t>(config.seed);
  options.vocab_size = vocab_size;
  result.train = std::make_shared<const GptDataset>(data, split.train, options);
  if (split.valid.size() > 0 && config.eval_iters > 0) {
    options.num_samples = 0;
    options.shuffle = false;
    options.name = "validation";
    result.valid = std::make_shared<const GptDataset>(data, split.valid, options);
  }
  return result;
}

SampleSource samples_of(std::shared_ptr<const GptDataset> dataset) {
  return [dataset = std::move(dataset)](int64_t i) { return dataset->get_sample(i); };
}

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
        session_(config, context.world, samples_of(data.train)),
        profile_(session_.graph()),
        searching_(config.schedule == "search"),
        schedule_(named_schedule(searching_ ? "paper" : config.schedule, session_.graph(), modelled_costs())) {
    summary_.connectivity = session_.model().connectivity.to_string();
    // Better now than after the last step.
    if (session_.is_first() && !config_.save.empty()) create_parent_folders(config_.save);
    if (session_.is_first() && !config_.log_file.empty()) {
      create_parent_folders(config_.log_file);
      log_file_.open(config_.log_file);
      if (!log_file_) fail("log_file={}: cannot be written", config_.log_file);
    }
  }

  TrainSummary run() {
    announce();
    double since_log_us = 0;
    for (int64_t iteration = 0; iteration < config_.train_iters; ++iteration) {
      StepResult step = session_.step(iteration, schedule_);
      const double step_ms = (step.end_us - step.begin_us) / 1e3;
      since_log_us += step.end_us - step.begin_us;
      summary_.losses.emplace_back(iteration + 1, session_.stats().loss);
      summary_.step_ms.push_back(step_ms);
      if (!std::isfinite(session_.stats().loss)) {
        fail("iteration {}: the loss is {}; lower lr (now {}) or raise lr_warmup_iters (now {})", iteration + 1,
             session_.stats().loss, config_.lr, config_.lr_warmup_iters);
      }
      write_log(iteration, step_ms);
      if ((iteration + 1) % config_.log_interval == 0) {
        print_line(iteration, since_log_us / 1e3 / static_cast<double>(config_.log_interval));
        since_log_us = 0;
      }
      if (searching_) profile(iteration, step);
      last_ = std::move(step);
      const bool last = iteration + 1 == config_.train_iters;
      if (data_.valid && (last || (config_.eval_interval > 0 && (iteration + 1) % config_.eval_interval == 0))) {
        validate_model(iteration + 1);
      }
      if (!config_.save.empty() &&
          (last || (config_.save_interval > 0 && (iteration + 1) % config_.save_interval == 0))) {
        session_.save(config_.save);
        if (session_.is_first()) log_info(fmt::format("saved to {}", config_.save));
      }
    }
    finish();
    return std::move(summary_);
  }

 private:
  CostTable modelled_costs() const {
    Workload load;
    load.sequences = static_cast<double>(config_.micro_batch_size);
    load.seq_length = static_cast<double>(config_.seq_length);
    load.bytes_per_value = config_.dtype == TrainDtype::bf16 ? 2 : 4;
    return model_costs(session_.graph(), session_.model().config, machine("cpu"), load);
  }

  void announce() {
    if (!session_.is_first()) return;
    const ModelConfig& model = session_.model().config;
    log_info(fmt::format("{}: {} layers, {:.2f} M parameters ({:.2f} M active), connectivity {}", config_.model,
                         model.num_layers(), static_cast<double>(model.num_parameters()) / 1e6,
                         static_cast<double>(model.num_active_parameters()) / 1e6, summary_.connectivity));
    log_info(fmt::format("layout {}, {} microbatches of {} x {} tokens per rank and step, link {}", config_.layout,
                         config_.num_microbatches(), config_.micro_batch_size, config_.seq_length,
                         context_.link->spec().to_string()));
  }

  /// After a few steps of the paper's order the search has measured times to go by. No bit of the training changes.
  void profile(int64_t iteration, const StepResult& step) {
    if (iteration >= num_warmup_steps) profile_.add(step);
    if (profile_.num_steps() < num_profiled_steps) return;
    searching_ = false;
    costs_ = profile_.table(context_.link->spec(), *session_.communicators().world);
    const SearchResult found = search_schedule(session_.graph(), costs_);
    schedule_ = found.schedule;
    if (session_.is_first()) {
      log_info(fmt::format("schedule: {}, {:.1f} ms a step in simulation (paper: {:.1f})", schedule_.name,
                           found.step_us / 1e3, found.candidates.front().step_us / 1e3));
    }
  }

  void validate_model(int64_t iteration) {
    const int64_t available = data_.valid->size();
    const int64_t samples = std::min(available, config_.eval_iters * config_.global_batch_size);
    const double loss = session_.evaluate(samples_of(data_.valid), samples);
    summary_.validation_losses.emplace_back(iteration, loss);
    if (!session_.is_first()) return;
    log_info(fmt::format("validation loss at iteration {}: {:.4f} | PPL: {:.3f} | {} samples", iteration, loss,
                         std::exp(loss), samples));
    if (log_file_.is_open()) {
      log_file_ << nlohmann::json{{"iteration", iteration}, {"validation_loss", loss}, {"samples", samples}} << "\n"
                << std::flush;
    }
  }

  void write_log(int64_t iteration, double step_ms) {
    if (!log_file_.is_open()) return;
    const StepStats& stats = session_.stats();
    nlohmann::json line{{"iteration", iteration + 1},
                        {"lm_loss", stats.loss},
                        {"grad_norm", stats.gradient_norm},
                        {"learning_rate", stats.lr},
                        {"step_ms", step_ms},
                        {"consumed_samples", (iteration + 1) * config_.global_batch_size}};
    if (stats.aux_loss > 0) line["load_balancing_loss"] = stats.aux_loss;
    log_file_ << line << "\n" << std::flush;
    if (!log_file_) fail("log_file={}: writing failed; is the disk full?", config_.log_file);
  }

  void print_line(int64_t iteration, double step_ms) {
    if (!session_.is_first()) return;
    const StepStats& stats = session_.stats();
    const double left_s = (monotonic_seconds() - started_s_) / static_cast<double>(iteration + 1) *
                          static_cast<double>(config_.train_iters - iteration - 1);
    std::printf(
        " iteration %8ld/%8ld | consumed samples: %12ld | elapsed time per iteration (ms): %.1f | "
        "tokens per second: %.0f | learning rate: %.6E | global batch size: %5ld | lm loss: %.6E | "
        "grad norm: %.3f | time left: %s |\n",
        static_cast<long>(iteration + 1), static_cast<long>(config_.train_iters),
        static_cast<long>((iteration + 1) * config_.global_batch_size), step_ms,
        static_cast<double>(session_.tokens_per_step()) / step_ms * 1e3, stats.lr,
        static_cast<long>(config_.global_batch_size), stats.loss, stats.gradient_norm, format_duration(left_s).c_str());
    std::fflush(stdout);
  }

  void finish() {
    if (summary_.losses.empty()) return;
    summary_.schedule = schedule_.name;
    summary_.load = session_.stats().load;
    summary_.measured = last_.timeline;
    summary_.measured.title = "measured: " + schedule_.name;
    if (costs_.us.empty()) {
      CostProfile profile(session_.graph());
      profile.add(last_);
      costs_ = profile.table(context_.link->spec(), *session_.communicators().world);
    }
    const auto hint = exposure_hint(session_.graph(), costs_, config_.schedule != "reference");
    summary_.overlap = summarize(measure_overlap(last_.timeline, hint));
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
  StepResult last_;
  TrainSummary summary_;
  std::ofstream log_file_;
};

}  // namespace

TrainSummary train(const TrainConfig& config, const TrainData& data, RankContext& context) {
  return Trainer(config, data, context).run();
}

}  // namespace farskip
