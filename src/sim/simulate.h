#pragma once
// Discrete-event simulation: a schedule walked with a clock and a cost table in place of kernels. Lanes: the host that
// launches, the compute lane, one lane per communicator.

#include "schedule/schedule.h"
#include "sim/cost_model.h"
#include "trace/span.h"

namespace farskip {

struct Simulation {
  double step_us = 0;     ///< from the first launch to the end of the last lane
  double compute_us = 0;  ///< the compute lane's work
  double exposed_us = 0;  ///< it stood waiting for collectives
  Timeline timeline;      ///< spans as execution records them, of rank 0
};

/// REQUIRES: validate(graph, schedule) passes; one cost per node.
Simulation simulate(const StageGraph& graph, const Schedule& schedule, const CostTable& costs);

/// Communication lane of a node's collective, as in spans.
std::string lane_name(const Node& node);

/// Never below this, whatever the order: the larger of all compute and of the busiest communication lane.
double lane_bound_us(const StageGraph& graph, const CostTable& costs);

}  // namespace farskip
