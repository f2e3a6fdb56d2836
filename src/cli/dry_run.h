#pragma once
// farskip train --dry-run: what a run would hold and hide, without starting it.

#include <string>

#include "config/train_config.h"

namespace farskip::cli {

/// Memory of one rank, and the orders of the step's stages on a machine by name. `config` is resolved for the ranks of
/// the run.
std::string dry_run_text(const TrainConfig& config, const std::string& machine_name);

}  // namespace farskip::cli
