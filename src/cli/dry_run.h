#pragma once
// farskip train --dry-run, farskip distill --dry-run: what a run would hold and hide, without starting it.

#include <optional>
#include <string>

#include "config/model_config.h"
#include "config/train_config.h"
#include "layer/connectivity.h"
#include "sim/cost_model.h"

namespace farskip::cli {

/// Memory of one rank, and the orders of the step's stages on a machine by name. `config` is resolved for the ranks of
/// the run; `teacher`: of a distillation.
std::string dry_run_text(const TrainConfig& config, const ModelConfig& model, const Connectivity& connectivity,
                         const std::optional<Connectivity>& teacher, FrozenWeights frozen,
                         const std::string& machine_name);

}  // namespace farskip::cli
