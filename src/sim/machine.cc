#include "sim/machine.h"

#include "base/error.h"

namespace farskip {

const std::vector<Machine>& machines() {
  static const std::vector<Machine> table = {
      {.name = "mi300x",
       .description = "8x AMD MI300X, RCCL all-to-all inside the node",
       .matrix_flops = 0.42 * 1307e12,
       .grouped_flops = 0.36 * 1307e12,
       .attention_flops = 0.25 * 1307e12,
       .memory_bytes_per_s = 0.70 * 5.3e12,
       .link_bytes_per_s = 278e9,
       .link_latency_us = 200,
       .kernel_gap_us = 6,
       .launch_us = 20},
      {.name = "mi325x",
       .description = "8x AMD MI325X, RCCL all-to-all inside the node",
       .matrix_flops = 0.42 * 1307e12,
       .grouped_flops = 0.36 * 1307e12,
       .attention_flops = 0.25 * 1307e12,
       .memory_bytes_per_s = 0.70 * 6.0e12,
       .link_bytes_per_s = 278e9,
       .link_latency_us = 200,
       .kernel_gap_us = 6,
       .launch_us = 20},
      {.name = "mi325x-4node",
       .description = "32x AMD MI325X on 4 nodes, one 400 Gb/s NIC per GPU",
       .matrix_flops = 0.42 * 1307e12,
       .grouped_flops = 0.36 * 1307e12,
       .attention_flops = 0.25 * 1307e12,
       .memory_bytes_per_s = 0.70 * 6.0e12,
       .link_bytes_per_s = 35.2e9 * 31 / 24,
       .link_latency_us = 200,
       .kernel_gap_us = 6,
       .launch_us = 20},
      {.name = "h100",
       .description = "8x NVIDIA H100, NCCL all-to-all over NVLink",
       .matrix_flops = 0.62 * 989e12,
       .grouped_flops = 0.50 * 989e12,
       .attention_flops = 0.50 * 989e12,
       .memory_bytes_per_s = 2.9e12,
       .link_bytes_per_s = 340e9,
       .link_latency_us = 60,
       .kernel_gap_us = 4,
       .launch_us = 10},
      {.name = "h200",
       .description = "8x NVIDIA H200, NCCL all-to-all over NVLink",
       .matrix_flops = 0.62 * 989e12,
       .grouped_flops = 0.50 * 989e12,
       .attention_flops = 0.50 * 989e12,
       .memory_bytes_per_s = 4.0e12,
       .link_bytes_per_s = 340e9,
       .link_latency_us = 60,
       .kernel_gap_us = 4,
       .launch_us = 10},
      {.name = "cpu",
       .description = "a laptop's cores, ranks as threads, 2 Gbit/s link",
       .matrix_flops = 100e9,
       .grouped_flops = 70e9,
       .attention_flops = 50e9,
       .memory_bytes_per_s = 8e9,
       .link_bytes_per_s = 0.25e9,
       .link_latency_us = 50,
       .kernel_gap_us = 20,
       .launch_us = 0,
       .host_computes = true},
  };
  return table;
}

const Machine& machine(const std::string& name) {
  std::string names;
  for (const Machine& m : machines()) {
    if (m.name == name) return m;
    names += (names.empty() ? "" : ", ") + m.name;
  }
  fail("'{}' is not a known machine; there are {}", name, names);
}

}  // namespace farskip
