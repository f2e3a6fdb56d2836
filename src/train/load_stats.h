#pragma once
// How evenly the router uses its experts, in a few numbers for logs.

#include <cstdint>
#include <vector>

namespace farskip {

/// Of one layer in one step.
struct LoadStats {
  double max = 0;      ///< rows of the busiest expert
  double mean = 0;     ///< rows of all experts / number of experts
  double entropy = 0;  ///< of the experts' shares of all rows, divided by ln(experts): 1 even, 0 all in one expert
  double unused = 0;   ///< share of experts without a row

  double max_over_mean() const { return mean > 0 ? max / mean : 0; }
};

/// `load`: rows of each expert. Without any row only `unused` (1) is not 0.
LoadStats load_stats(const std::vector<int64_t>& load);

}  // namespace farskip
