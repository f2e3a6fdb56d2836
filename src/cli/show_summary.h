#pragma once
// The text that `farskip show` prints: the model, its stages, and what orders of them are worth on a machine.

#include <string>
#include <vector>

#include "sim/simulate.h"

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

/// All nodes in declaration order, one a line: name, lane, what it reads and writes, modelled time.
std::string graph_text(const Shown& shown);

}  // namespace farskip::cli
