#pragma once
// What `farskip bench ttft` compares: a mode is a connectivity and an order of execution, and nothing else. All modes
// run the same stages by the same executor over the same weights; only the graph and the schedule that they hand it
// differ.

#include <string>
#include <vector>

#include "schedule/schedule.h"
#include "sim/cost_model.h"

namespace farskip {

/// In which order a mode runs its graph.
enum class BenchOrder {
  blocking,    ///< declaration order, every collective awaited at once
  overlapped,  ///< the best order that the search finds for this graph
  two_batch,   ///< the batch in two halves, one computing while the other communicates
};

struct BenchMode {
  std::string name;          ///< as it was given
  std::string connectivity;  ///< its spelling
  BenchOrder order = BenchOrder::overlapped;

  int num_microbatches() const { return order == BenchOrder::two_batch ? 2 : 1; }
  /// Of the prefill or decode step of this mode, up to the sampled token.
  StageGraph graph(const ModelConfig& model, const Layout& layout, Phase phase) const;
  /// The order in which `graph` is run where its stages cost `costs`. Two batches take the better of the order by hand
  /// and the search's, by simulation.
  Schedule schedule(const StageGraph& graph, const CostTable& costs) const;
};

/// One mode: a connectivity, then "-blocking", "-async" or "-two-batch" (or with a slash: "last=50%/blocking"); without
/// any, overlapped. Throws Error for another spelling.
BenchMode parse_bench_mode(const std::string& text, int64_t num_layers);
/// A list of them, separated by commas. Throws Error for an empty list and for a mode that occurs twice.
std::vector<BenchMode> parse_bench_modes(const std::string& text, int64_t num_layers);
/// Of the modes, the index of the blocking one of this connectivity; -1: there is none.
int find_blocking(const std::vector<BenchMode>& modes, const std::string& connectivity);

inline constexpr const char* default_bench_modes =
    "standard-blocking,standard-async,standard-two-batch,farskip-blocking,farskip,farskip-two-batch";

}  // namespace farskip
