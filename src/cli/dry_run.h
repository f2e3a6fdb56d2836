#pragma once
// farskip train --dry-run, farskip distill --dry-run: what a run would hold and hide, without starting it.

#include <string>

#include "config/model_config.h"
#include "config/train_config.h"
#include "layer/connectivity.h"

namespace farskip::cli {

/// Memory of one rank, and the orders of the step's stages on a machine by name. `config` is resolved for the ranks of
/// the run.
std::string dry_run_text(const TrainConfig& config, const std::string& machine_name);

/// The same of a distillation, whose student and teacher have these connectivities.
std::string dry_run_text(const TrainConfig& config, const ModelConfig& model, const Connectivity& student,
                         const Connectivity& teacher, const std::string& machine_name);

}  // namespace farskip::cli
