#pragma once
// Search for a good schedule under a cost table: the best of the paper's order and several list schedules, judged by
// simulation. Deterministic: ranks that search with the same costs find the same schedule.

#include "sim/simulate.h"

namespace farskip {

struct SearchOptions {
  int max_microbatches_in_flight = 1;  ///< forward passes begun and not yet differentiated: bounds memory
  int num_perturbed = 16;              ///< additional list schedules under perturbed priorities
  double tolerance = 5e-3;             ///< orders this close to the fastest count as equally fast, and
  double jitter = 0.1;  ///< the one that loses least on two ranks whose stages vary by this share is taken
  uint64_t seed = 1;
};

struct SearchResult {
  Schedule schedule;  ///< named "search (from ...)"
  double step_us = 0;
  struct Candidate {
    std::string name;
    double step_us;
  };
  std::vector<Candidate> candidates;
};

/// REQUIRES: one cost per node. The result is valid for the graph.
SearchResult search_schedule(const StageGraph& graph, const CostTable& costs, const SearchOptions& options = {});

/// By the one spelling: reference | paper | search | two-batch | 1f1b | async (declaration order, awaited by the first
/// reader) | FILE (text form). The result is validated. Throws Error for a name that is neither, and for a file that
/// does not fit the graph.
Schedule named_schedule(const std::string& name, const StageGraph& graph, const CostTable& costs);
const char* schedule_help();

}  // namespace farskip
