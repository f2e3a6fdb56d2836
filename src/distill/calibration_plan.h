#pragma once
// What a calibration (distill/calibrate.h) will take, told before it begins, and how far it is.

#include <cstdint>
#include <functional>
#include <string>

#include "config/model_config.h"
#include "layer/layout.h"

namespace farskip {

/// Of one rank.
struct CalibrationPlan {
  double weight_bytes = 0;      ///< in fp32
  double statistics_bytes = 0;  ///< sums of the maps that are fitted together
  double waiting_bytes = 0;     ///< of values that wait between layers, in memory or on disk
  double forward_flops = 0;     ///< in fp32: teacher and student through all tokens, heads through those held out
  double statistics_flops = 0;  ///< in fp64: sums, solutions for each damping, products of maps and weights
};

/// Bytes of the statistics of one map from `num_parts` parts, of tokens to fit and of those held out.
double map_statistics_bytes(int64_t hidden_size, int64_t num_parts);

/// Whether experts have maps of their own: the statistics of all of a layer take at most `max_bytes`.
bool expert_maps_fit(const ModelConfig& model, double max_bytes);

/// `num_tokens` of this rank in sequences of `seq_length`, with the default CalibrationOptions.
CalibrationPlan plan_calibration(const ModelConfig& model, int64_t num_tokens, int64_t seq_length,
                                 const Layout& layout = {});

/// Seconds for the operations of a plan at the rates of matrix products of this model's width, which are timed on this
/// machine for it (a fraction of a second). What lies between the products is not in it.
double expected_seconds(const CalibrationPlan& plan, int64_t hidden_size);

/// One line: tokens, memory, time. `spool_folder` as in CalibrationOptions.
std::string describe_calibration(const ModelConfig& model, int64_t num_tokens, int64_t seq_length, const Layout& layout,
                                 const std::string& spool_folder);

/// For CalibrationOptions::on_progress: says every other second how many layers are done and how long the rest takes.
std::function<void(int64_t layers_done)> calibration_progress(int64_t num_layers,
                                                              std::function<void(const std::string& line)> say);

}  // namespace farskip
