#pragma once
// Memory of one rank in a training step, predicted: weights and their companions from the model's shape, activations by
// walking a schedule and counting what lives at once. The same for any machine; the allocator's own losses come on top.

#include <string>

#include "schedule/schedule.h"
#include "sim/cost_model.h"

namespace farskip {

/// Bytes of one rank.
struct MemoryPlan {
  double weights = 0;      ///< in the compute dtype
  double teacher = 0;      ///< weights of a distillation's teacher
  double masters = 0;      ///< fp32 masters of what is trained, where they are not the weights themselves
  double gradients = 0;    ///< fp32
  double moments = 0;      ///< AdamW's two, fp32
  double activations = 0;  ///< most that lives at once: values, what stages keep for their backward, rows in flight
  std::string peak_at;     ///< the node that runs then
  double total() const { return weights + teacher + masters + gradients + moments + activations; }
};

/// `load` says tokens, bytes per value (2: bf16 with fp32 masters) and what is frozen: it has weights alone.
/// REQUIRES: a training graph with the all-to-all layout, and validate(graph, schedule) passes.
MemoryPlan plan_memory(const StageGraph& graph, const Schedule& schedule, const ModelConfig& model,
                       const Workload& load);

}  // namespace farskip
