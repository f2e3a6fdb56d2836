#pragma once
// The graph of a training step as a recipe asks for it.

#include "config/train_config.h"
#include "layer/stage_graph.h"

namespace farskip {

/// Layout, microbatches, sharing out and recomputation of a recipe that is resolved. Throws Error for modules of
/// recompute_modules that are not known. `teacher`: of a distillation whose teacher runs beside the student.
GraphOptions training_graph(const TrainConfig& config, const ModelConfig& model,
                            const std::optional<Connectivity>& teacher = std::nullopt);

}  // namespace farskip
