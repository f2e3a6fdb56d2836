#pragma once
// What a distillation came to: a sentence for people, a file for programs.

#include <nlohmann/json.hpp>
#include <string>

#include "train/session.h"

namespace farskip {

/// "KL held out: 0.0756 | same top-1: 86.8 % | router drift: 31.0 % (worst layer 40.2 %) | ".
std::string held_out_text(const DistillStats& stats);

/// How a run went.
struct DistillCourse {
  int64_t steps = 0;  ///< done
  bool stopped_early = false;
  double seconds = 0;       ///< of this start of the run
  nlohmann::json held_out;  ///< HeldOutWatch::figures()
};

/// Writes the recipe's `result`: one JSON object with what was distilled from what, the budget, what the guard did,
/// what calibration brought, and the figures held out.
void write_distill_result(const TrainConfig& config, TrainingSession& session, const DistillCourse& course);

}  // namespace farskip
