// The weights that a session begins with: drawn, read, or read and fitted to another connectivity.

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "distill/calibration_plan.h"
#include "model/checkpoint.h"
#include "model/initialize.h"
#include "train/load_cost.h"
#include "train/session.h"

namespace farskip {

void TrainingSession::load_weights(const SampleSource& samples, const std::vector<int32_t>& calibration_tokens) {
  const bool distills = config_.distill.wanted();
  if (resumes(config_) || (config_.load.empty() && !distills)) {  // resuming: restore() brings the weights
    initialize(*parameters_, {static_cast<uint64_t>(config_.seed),
                              config_.init_method_std.value_or(model_.config.initializer_range)});
    parameters_->update_values();
    return;
  }
  const std::string folder = distills ? student_folder(config_) : config_.load;
  log_load_cost(folder, load_checkpoint(folder, *parameters_), *communicators_.world);
  if (distills && config_.distill.calibrates()) calibrate_weights(calibration_sequences(samples, calibration_tokens));
}

/// This rank's sequences [N, S], on every rank as many.
at::Tensor TrainingSession::calibration_sequences(const SampleSource& samples,
                                                  const std::vector<int32_t>& given) const {
  const int64_t length = config_.seq_length, ranks = communicators_.world->size(), rank = communicators_.world->rank();
  const int64_t wanted = config_.distill.calibrate_tokens > 0
                             ? config_.distill.calibrate_tokens
                             : calibration_tokens_per_channel * model_.config.hidden_size;
  const bool of_samples = given.empty();
  const int64_t available = of_samples ? config_.train_iters * config_.global_batch_size : std::ssize(given) / length;
  const int64_t per_rank = std::min(available, (wanted + length - 1) / length) / ranks;
  if (per_rank < 2) {
    fail("calibrate={}: {} sequences of {} tokens for {} rank{}; at least two each are needed, better {} tokens in all",
         config_.distill.calibrate, available, length, ranks, ranks == 1 ? "" : "s",
         calibration_tokens_per_channel * model_.config.hidden_size);
  }
  at::Tensor sequences = at::empty({per_rank, length}, at::kLong);
  auto* out = sequences.data_ptr<int64_t>();
  for (int64_t i = 0; i < per_rank; ++i, out += length) {
    const int64_t sequence = i * ranks + rank;
    if (of_samples) {
      const TrainSample sample = samples(sequence);
      std::copy_n(sample.tokens.begin(), length, out);
    } else {
      std::copy_n(given.begin() + sequence * length, length, out);
    }
  }
  return sequences;
}

/// Fits copies in fp32, and takes them over where they help.
void TrainingSession::calibrate_weights(const at::Tensor& tokens) {
  const double begin = monotonic_seconds();
  ParameterOptions options = parameters_->options();
  options.dtype = at::kFloat;
  options.keep_main = false;
  options.frozen.clear();
  ParameterSet fitted(std::make_shared<const ParameterTable>(model_.config), options);
  load_checkpoint(student_folder(config_), fitted);
  CalibrationOptions calibration;
  if (is_first()) {
    log_info(describe_calibration(model_.config, tokens.numel(), tokens.size(1), layout_, calibration.spool_folder));
    calibration.on_progress = calibration_progress(model_.config.num_layers(), log_info);
  }
  calibration_ = calibrate(model_.config, model_.teacher->connectivity, model_.connectivity, fitted, communicators_,
                           layout_, tokens, calibration);
  const CalibrationReport& report = *calibration_;
  if (is_first()) {
    log_info(fmt::format("calibrated on {:.0f} tokens in {}: KL on {:.0f} tokens held out {:.4f} before, {:.4f} after",
                         report.fitted_tokens, format_duration(monotonic_seconds() - begin), report.after.num_tokens,
                         report.before.kl, report.after.kl));
    if (!report.accepted()) log_warning("calibration does not help on text held out: the weights stay as they were");
  }
  if (!report.accepted()) return;
  const at::NoGradGuard no_grad;
  for (int id = 0; id < parameters_->size(); ++id) parameters_->stored(id).copy_(fitted.value(id));
  parameters_->update_values();
}

}  // namespace farskip
