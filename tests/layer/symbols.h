#pragma once
// Evaluates a forward graph on symbols: attention of layer 3 yields "a3", routed experts "r3", shared "s3", a dense
// feed-forward "d3", the embedding "x", and sums keep their brackets. So a view reads as the expression it computes.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "layer/stage_graph.h"

namespace farskip::testing {

/// What the readers of the stream get, as expressions.
struct Views {
  std::map<int, std::string> attention, feed_forward;  ///< by layer
  std::string head;
};

Views evaluate(const StageGraph& graph);

/// The symbols of an expression, sorted: "((x + a0) + s0)" -> {"a0", "s0", "x"}.
std::multiset<std::string> symbols_of(const std::string& expression);

}  // namespace farskip::testing
