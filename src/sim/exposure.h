#pragma once
// Why a collective stays exposed, as far as graph and costs tell.

#include "sim/cost_model.h"
#include "trace/overlap.h"

namespace farskip {

/// For measure_overlap, by the collectives' names: first_or_last_layer are those in the first or last layer that has
/// collectives, or outside all layers, under which no order can put as much computation as they take, while under the
/// same collective of a middle layer (where there is one) some order could. What can stand under a collective are the
/// stages that neither lead to it nor follow from it. Where there are none, and it is not for the place alone, a
/// collective has nothing_beside_it: both of a standard layer under tensor parallelism, a dense layer's wherever it
/// stands. `overlapped` false: the schedule awaits every collective at once, and all others are not_enabled.
ExposureHint exposure_hint(const StageGraph& graph, const CostTable& costs, bool overlapped = true);

}  // namespace farskip
