#pragma once
// Cost tables: how long each node of a graph takes. Modelled from a machine's figures, or measured by a profile run;
// the cost of communication is always analytic (bytes / bandwidth + latency).

#include <map>
#include <utility>
#include <vector>

#include "config/train_config.h"
#include "layer/stage_graph.h"
#include "sim/machine.h"

namespace farskip {

/// Cost of every node, by node id, in microseconds, and how the host takes part.
struct CostTable {
  std::vector<double> us;
  double launch_us = 0;        ///< host time to launch a stage
  bool host_computes = false;  ///< host and compute are one lane
  bool one_link = false;       ///< all communicators share one link (an emulated one); else each has its own

  /// The link that carries a collective, named by a communicator.
  Group link_of(const Node& node) const { return one_link ? Group::world : node.group; }
  /// The same with free communication: what T_compute is.
  CostTable without_communication(const StageGraph& graph) const { return with_slower_communication(graph, 0); }
  /// The same with every collective taking `factor` times as long.
  CostTable with_slower_communication(const StageGraph& graph, double factor) const;
  /// The same on a rank that does not run evenly: each computing stage takes longer by a random share, `jitter` in the
  /// mean (exponentially distributed). A pure function of (jitter, seed, stream).
  CostTable with_jitter(const StageGraph& graph, double jitter, uint64_t seed, uint64_t stream) const;
};

/// How many weights of a layer (-1: embedding, num_layers: head) and stage have no gradients; all experts counted.
using FrozenWeights = std::map<std::pair<int64_t, Stage>, double>;

/// What flows through one microbatch on one rank.
struct Workload {
  double sequences = 1;      ///< per microbatch and rank
  double seq_length = 4096;  ///< positions per sequence; in decode the length of the cache
  double bytes_per_value = 2;
  double skew = 1;      ///< rows of the busiest expert rank over the mean
  bool decode = false;  ///< one token per sequence
  FrozenWeights frozen = {};
  double tokens() const { return decode ? sequences : sequences * seq_length; }
};

/// Of one microbatch of a recipe.
Workload training_workload(const TrainConfig& config, FrozenWeights frozen);

/// Bytes that one rank hands to the collective `node`, what stays on the rank included (docs/machines.md).
double collective_bytes(const StageGraph& graph, const ModelConfig& model, const Workload& load, NodeId node);

/// Time of a collective that moves `bytes` among `ranks` ranks: what leaves the rank over the bandwidth, plus latency.
/// An all-reduce is two exchanges.
double collective_us(bool all_reduce, double bytes, int ranks, double bytes_per_s, double latency_us);

CostTable model_costs(const StageGraph& graph, const ModelConfig& model, const Machine& machine, const Workload& load);

}  // namespace farskip
