#include "sim/machine.h"

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "config/json_reader.h"

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

namespace {

using nlohmann::json;

const Machine& machine_by_name(const std::string& name) {
  std::string names;
  for (const Machine& m : machines()) {
    if (m.name == name) return m;
    names += (names.empty() ? "" : ", ") + m.name;
  }
  fail("'{}' is not a known machine; there are {}, and files of figures that end in .json", name, names);
}

constexpr std::pair<const char*, double Machine::*> kRates[] = {
    {"matrix_flops", &Machine::matrix_flops},         {"grouped_flops", &Machine::grouped_flops},
    {"attention_flops", &Machine::attention_flops},   {"memory_bytes_per_s", &Machine::memory_bytes_per_s},
    {"link_bytes_per_s", &Machine::link_bytes_per_s},
};
constexpr std::pair<const char*, double Machine::*> kTimes[] = {
    {"link_latency_us", &Machine::link_latency_us},
    {"kernel_gap_us", &Machine::kernel_gap_us},
    {"launch_us", &Machine::launch_us},
};

void refuse_unknown_keys(const json& figures, const JsonReader& reader) {
  for (const auto& [key, value] : figures.items()) {
    const auto is_key = [&key = key](const auto& known) { return key == known.first; };
    if (std::ranges::any_of(kRates, is_key) || std::ranges::any_of(kTimes, is_key)) continue;
    if (key != "like" && key != "name" && key != "description" && key != "host_computes")
      reader.refuse(fmt::format("\"{}\" is not a figure of a machine (docs/machines.md lists them)", key));
  }
}

Machine machine_of_file(const std::string& path) {
  json figures;
  try {
    figures = json::parse(read_file(path));
  } catch (const json::exception& error) {
    fail("{} is not JSON: {}", path, error.what());
  }
  const JsonReader reader(figures, path);
  refuse_unknown_keys(figures, reader);
  const std::string like = reader.text("like", "");
  Machine m = like.empty() ? Machine() : machine_by_name(like);
  m.name = reader.text("name", path);
  m.description = reader.text("description", like.empty() ? "" : "like " + like);
  for (const auto& [key, member] : kRates) {
    if (like.empty() && !reader.has(key))
      reader.refuse(fmt::format("\"{}\" is missing; give it, or \"like\": one of the machines by name", key));
    m.*member = reader.positive(key, m.*member);
  }
  for (const auto& [key, member] : kTimes) {
    m.*member = reader.number(key, m.*member);
    if (m.*member < 0) reader.refuse(key, "a time of at least 0 was expected");
  }
  m.host_computes = reader.flag("host_computes", m.host_computes);
  return m;
}

}  // namespace

Machine machine(const std::string& name) {
  return name.ends_with(".json") ? machine_of_file(name) : machine_by_name(name);
}

}  // namespace farskip
