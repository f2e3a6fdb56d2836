#pragma once
// Discrete-event simulation: a schedule walked with a clock and cost tables in place of kernels. Lanes of a rank: the
// host that launches and the compute lane; one lane per communicator, or per link, for all ranks together.

#include "schedule/schedule.h"
#include "sim/cost_model.h"
#include "trace/span.h"

namespace farskip {

struct Simulation {
  double step_us = 0;     ///< from the first launch to the end of the last lane
  double compute_us = 0;  ///< the compute lane's work
  double exposed_us = 0;  ///< it stood waiting for collectives under way
  double skew_us = 0;     ///< it stood waiting for a rank that had not launched yet
  Timeline timeline;      ///< spans as execution records them
};

/// REQUIRES: validate(graph, schedule) passes; one cost per node.
Simulation simulate(const StageGraph& graph, const Schedule& schedule, const CostTable& costs);

/// Ranks that differ: one table each, of which a collective takes the largest cost. It starts when the last rank has
/// launched it; every rank is a member of every communicator. Times but step_us are means over ranks.
Simulation simulate(const StageGraph& graph, const Schedule& schedule, const std::vector<CostTable>& ranks);

/// Its step_us alone, without the time to draw a timeline.
double simulated_step_us(const StageGraph& graph, const Schedule& schedule, const std::vector<CostTable>& ranks);

/// Communication lane of a node's collective, as in spans.
std::string lane_name(const Node& node);

/// Never below this, whatever the order: the larger of all compute and of the busiest communication lane.
double lane_bound_us(const StageGraph& graph, const CostTable& costs);

}  // namespace farskip
