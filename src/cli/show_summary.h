#pragma once
// The text that `farskip show` prints: the model, its stages, and what orders of them are worth on a machine.

#include <string>
#include <vector>

#include "sim/simulate.h"
#include "trace/table.h"

namespace farskip::cli {

/// One model, laid out and simulated on one machine.
struct Shown {
  std::string name;  ///< as given on the command line
  ModelConfig model;
  Connectivity connectivity;
  StageGraph graph;
  Machine machine;
  Workload load;
  CostTable costs;
};

struct SimulatedSchedule {
  Schedule schedule;
  Simulation simulation;
};

/// `chosen` indexes `schedules`; schedules[0] is the reference, to which the others are compared.
std::string summary_text(const Shown& shown, const std::vector<SimulatedSchedule>& schedules, size_t chosen);

/// "15.7 B", "3.42 M"
std::string parameters_text(int64_t count);
/// What each reader misses, one line for neighbouring layers with the same Skip.
Table missing_table(const Connectivity& connectivity);
/// "12: 1 dense, 11 MoE with 8 experts, 2 for each token, and shared experts"
std::string layers_text(const ModelConfig& model);
/// The layer in the middle of those of one kind; -1 if there is none.
int middle_layer(const ModelConfig& model, LayerKind kind);

/// All nodes in declaration order, one a line: name, lane, what it reads and writes, modelled time.
std::string graph_text(const Shown& shown);

}  // namespace farskip::cli
