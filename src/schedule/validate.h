#pragma once
// Whether a schedule may be executed. Mandatory before every execution.

#include <vector>

#include "schedule/schedule.h"

namespace farskip {

/// Throws Error naming the first broken edge: a stage that runs before something it reads is there, a node that is
/// missing or twice, a collective awaited before its launch or never.
void validate(const StageGraph& graph, const Schedule& schedule);

/// What one rank is going to execute, and with whom.
struct RankSchedule {
  const StageGraph* graph;
  const Schedule* schedule;
  /// Ranks (indices into the list) of this rank's communicator of each group, this rank included.
  std::vector<int> members[4];
  const std::vector<int>& members_of(Group group) const { return members[static_cast<size_t>(group)]; }
};

/// Proves that ranks executing these schedules agree on the order of collectives in each communicator and can never
/// wait for each other in a circle. Throws Error naming the ranks, the communicator and the two collectives that
/// disagree, or the operations in the circle.
void validate_ranks(const std::vector<RankSchedule>& ranks);

/// The ranks of `layout`, all executing `schedule`. Rank r has expert rank r % ep and data rank r / ep.
std::vector<RankSchedule> uniform_ranks(const StageGraph& graph, const Schedule& schedule, const Layout& layout);

}  // namespace farskip
