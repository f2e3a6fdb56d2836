#pragma once
// A step of a FarSkip model in the paper's order, timed by hand: what renderers are tested with.

#include <string>

#include "trace/span.h"

namespace farskip {

/// One rank's "compute" lane and its "ep" link. `link` scales the collectives, which take 70 and 80 us.
Timeline sample_timeline(const std::string& title, int num_layers, double link = 1, int num_ranks = 1);

}  // namespace farskip
