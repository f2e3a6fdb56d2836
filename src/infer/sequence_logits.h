#pragma once
// The plain way to logits: one rank, one sequence, every position computed anew.

#include <ATen/core/Tensor.h>

#include <functional>

#include "layer/stage_graph.h"
#include "model/parameter_set.h"
#include "model/stage_math.h"

namespace farskip {

/// Token ids [S] -> logits [S, V], valid until the next call.
using SequenceLogits = std::function<at::Tensor(const at::Tensor& ids)>;

/// Calls `body` once with a function that runs `graph`, a forward graph of one microbatch on one rank.
void with_sequence_logits(const StageGraph& graph, const StageMath& math, ParameterSet& parameters,
                          const std::function<void(const SequenceLogits&)>& body);

}  // namespace farskip
