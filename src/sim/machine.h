#pragma once
// Machines as a cost model sees them. Figures are measured or vendors' (docs/machines.md names the sources).

#include <string>
#include <vector>

namespace farskip {

struct Machine {
  std::string name;
  std::string description;
  double matrix_flops = 0;     ///< sustained in dense matrix products, FLOP/s
  double grouped_flops = 0;    ///< sustained in the experts' grouped products
  double attention_flops = 0;  ///< sustained in fused core attention, forward
  double memory_bytes_per_s = 0;
  double link_bytes_per_s = 0;  ///< one way, per rank, inside an expert group
  double link_latency_us = 0;   ///< per collective
  double kernel_gap_us = 0;     ///< between two kernels on the compute lane
  double launch_us = 0;         ///< host time per stage
  bool host_computes = false;   ///< host and compute are one lane (a CPU)
};

/// One of machines() by name, or a file of figures: FILE.json, an object with the keys of Machine (docs/machines.md);
/// those that are missing are those of the machine that its key "like" names. Throws Error for an unknown name, with
/// the list, and for a file that is not understood.
Machine machine(const std::string& name);
const std::vector<Machine>& machines();

}  // namespace farskip
