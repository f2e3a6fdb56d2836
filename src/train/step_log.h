#pragma once
// What a step leaves in the JSON lines and in TensorBoard.

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "train/training_step.h"

namespace farskip {

/// What only rank 0 knows about a step beside its statistics.
struct StepRecord {
  int64_t iteration = 0;  ///< from 1
  BatchPosition position;
  int64_t seq_length = 0;
  double step_ms = 0;

  double tokens_per_second() const { return static_cast<double>(position.batch_size * seq_length) / step_ms * 1e3; }
};

/// What is printed of a step; `left_s`: until the last of train_iters.
std::string step_text(const StepRecord& record, const StepStats& stats, int64_t train_iters, double left_s);

/// One line of log_file: the figures of the step, per MoE layer how even the experts' load was, and, where the guard
/// has kept the step from changing anything, why.
nlohmann::json step_line(const StepRecord& record, const StepStats& stats, const std::string& reason);

/// Points of the curves in TensorBoard, by Megatron's names where it has one.
std::vector<std::pair<std::string, double>> step_scalars(const StepRecord& record, const StepStats& stats);

}  // namespace farskip
