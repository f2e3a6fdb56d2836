#include "train/load_stats.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace farskip {

LoadStats load_stats(const std::vector<int64_t>& load) {
  FARSKIP_CHECK(!load.empty());
  LoadStats stats;
  double total = 0;
  for (const int64_t rows : load) total += static_cast<double>(rows);
  for (const int64_t rows : load) {
    const double share = rows > 0 ? static_cast<double>(rows) / total : 0;
    if (rows > 0) stats.entropy -= share * std::log(share);
    if (rows == 0) stats.unused += 1;
    stats.max = std::max(stats.max, static_cast<double>(rows));
  }
  const auto num_experts = static_cast<double>(load.size());
  stats.mean = total / num_experts;
  stats.unused /= num_experts;
  stats.entropy = load.size() == 1 ? (total > 0 ? 1 : 0) : stats.entropy / std::log(num_experts);
  return stats;
}

}  // namespace farskip
