#pragma once
// What benchmarks of training and of inference steps share: the link that they emulate, times over ranks, processor
// time, and figures as JSON.

#include <nlohmann/json.hpp>

#include "base/stats.h"
#include "exec/executor.h"
#include "trace/overlap.h"
#include "transport/emulated_link.h"

namespace farskip {

/// The link to emulate: fixed, or such that communication is `share` of a blocking step.
struct BenchLink {
  LinkSpec spec;
  double share = 0;  ///< 0: use spec
  /// "share=0.25" (with ",latency=50us" if wanted) or a LinkSpec.
  static BenchLink parse(const std::string& text);
};

/// What the collectives of a step put on the link of one rank.
struct LinkUse {
  double bytes = 0;   ///< the larger direction
  int exchanges = 0;  ///< each of them waits for the latency; an all-reduce is two
  static LinkUse of(const StageGraph& graph, const StepResult& step);
};

/// The link on which `use` takes so long that it is link.share of the step whose computation takes `compute_us`;
/// link.spec where no share is wanted. Throws Error where latencies alone take more than half of that time.
LinkSpec link_for(const BenchLink& link, double compute_us, const LinkUse& use);

double mean_over_ranks(Transport& world, double value);
/// Element by element the largest over ranks: a step is over when the last rank is done.
std::vector<double> slowest_rank(Transport& world, const std::vector<double>& mine);
int ranks_of_this_process(Transport& world);

/// CPU time, user and system: of all threads of this process, of this thread.
double process_cpu_ms();
double thread_cpu_ms();

/// {"value", "low", "high"}
nlohmann::json to_json(const Estimate& estimate);
/// Times in ms per step.
nlohmann::json to_json(const OverlapRow& row, int num_steps);
/// "12.30 [12.10, 12.55]"
std::string to_text(const Estimate& estimate, int digits = 2, double factor = 1);

}  // namespace farskip
