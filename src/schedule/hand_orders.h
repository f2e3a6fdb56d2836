#pragma once
// Orders written by hand: the paper's, the two rivals that overlap two microbatches, and teacher beside student. All
// are schedules of one graph.

#include "schedule/schedule.h"

namespace farskip {

/// Weights are gathered this many layers before they are used: soon enough to arrive, late enough not to stand in the
/// way of the collectives of the layers before.
inline constexpr int gather_ahead = 2;

/// AMD's hand order. Forward, layer k: q/k/v of k under combine of k-1, then gate and dispatch of k, core attention and
/// output projection under the dispatch, routed experts, combine, shared experts under it. Backward mirrored: combine's
/// gradient under shared experts and core attention, dispatch's gradient under q/k/v; weight gradients with their
/// stage. On a graph that does not allow this order (a standard model) each stage comes as soon after its place as it
/// can.
Schedule paper_schedule(const StageGraph& graph);

/// Microbatches 2i and 2i+1 side by side: each runs until it needs a collective in flight, then the other goes on.
Schedule two_batch_schedule(const StageGraph& graph);

/// Distillation: teacher's and student's forward pass of a microbatch side by side, in the same way. REQUIRES: a graph
/// with a teacher.
Schedule two_models_schedule(const StageGraph& graph);

/// Backward of microbatch i beside forward of microbatch i+1, in the same way.
Schedule one_forward_one_backward_schedule(const StageGraph& graph);

}  // namespace farskip
