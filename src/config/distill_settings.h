#pragma once
// Settings of farskip distill that farskip train does not have.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/settings.h"

namespace farskip {

struct TrainConfig;

/// Defaults, ranges and meanings stand in add_distillation(), their only place.
struct DistillSettings {
  std::string teacher;               ///< folder; empty: no distillation
  std::string teacher_connectivity;  ///< empty: as its config.json says
  std::string calibrate;             ///< "", "false", "true" (the training data) or a text
  int64_t calibrate_tokens = 0;      ///< 0: a number by the model's width
  double temperature = 1;
  double cross_entropy_weight = 0;
  double hidden_weight = 0;
  std::optional<int64_t> hidden_decay_iters;  ///< absent: train_iters
  double router_weight = 0;
  std::string teacher_cache;  ///< folder; empty: the teacher runs beside the student
  int64_t top_k = 0;          ///< with teacher_cache
  int64_t top_k_samples = 0;  ///< 0: the rest is one class
  int64_t patience = 0;       ///< 0: no early stop
  double min_improvement = 0;
  bool keep_best = true;
  std::string result;

  bool wanted() const { return !teacher.empty(); }
  bool calibrates() const { return !calibrate.empty() && calibrate != "false"; }
  /// Of the term at step `iteration`: it falls linearly, from the whole at the first step to nothing.
  double hidden_weight_at(int64_t iteration, int64_t train_iters) const;
};

/// Appends these settings.
void add_distillation(Settings& table, TrainConfig& config);

/// The table of all settings of farskip distill, bound to `config`: these and farskip train's, with other defaults
/// where weights are good already.
Settings distill_settings(TrainConfig& config);

/// As load_train_config, with these settings as well; `model` is the teacher unless it is given. Throws Error also
/// where no teacher is given, and for settings that contradict each other.
TrainConfig load_distill_config(const std::string& recipe, const std::vector<std::string>& overrides);

/// Text of `farskip distill --help-settings`.
std::string distill_settings_help();

}  // namespace farskip
