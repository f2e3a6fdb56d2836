#include "cli/dry_run.h"

#include <utility>

#include "cli/show_summary.h"
#include "layer/training_graph.h"
#include "sim/memory.h"
#include "sim/search.h"
#include "trace/table.h"

namespace farskip::cli {
namespace {

Table memory_table(const MemoryPlan& plan) {
  auto gib = [](double bytes) {
    return bytes < 1 << 30 ? fmt::format("{:.1f} MiB", bytes / (1 << 20))
                           : fmt::format("{:.2f} GiB", bytes / (1 << 30));
  };
  Table table{{"memory of a rank", "bytes", "what"}, {}, ""};
  table.rows = {{"weights", gib(plan.weights), "what stages compute with"},
                {"teacher", gib(plan.teacher), "its weights; none without distillation"},
                {"masters", gib(plan.masters), "fp32, where weights are not"},
                {"gradients", gib(plan.gradients), "fp32, of all microbatches"},
                {"moments", gib(plan.moments), "AdamW's two, fp32"},
                {"activations", gib(plan.activations), "at the peak, in " + plan.peak_at},
                {},
                {"total", gib(plan.total()), "without the allocator's losses"}};
  table.note = "A checkpoint copies a rank's share of weights and moments while it is written.";
  return table;
}

}  // namespace

std::string dry_run_text(const TrainConfig& config, const ModelConfig& model, const Connectivity& connectivity,
                         const std::optional<Connectivity>& teacher, FrozenWeights frozen,
                         const std::string& machine_name) {
  const bool beside = config.distill.teacher_cache.empty();
  Shown shown;
  shown.name = config.load.empty() ? config.model : config.load;
  shown.model = model;
  shown.connectivity = connectivity;
  shown.machine = machine(machine_name);
  shown.load = training_workload(config, std::move(frozen));
  shown.graph = build_graph(shown.model, shown.connectivity,
                            training_graph(config, shown.model, beside ? teacher : std::nullopt));
  shown.costs = model_costs(shown.graph, shown.model, shown.machine, shown.load);
  std::vector<SimulatedSchedule> schedules;
  for (const std::string& name : std::vector<std::string>{"reference", config.schedule}) {
    Schedule schedule = named_schedule(name, shown.graph, shown.costs);
    Simulation simulation = simulate(shown.graph, schedule, shown.costs);
    schedules.push_back({std::move(schedule), std::move(simulation)});
  }
  const MemoryPlan memory = plan_memory(shown.graph, schedules.back().schedule, shown.model, shown.load);
  return summary_text(shown, schedules, schedules.size() - 1) + "\n" + render_text(memory_table(memory));
}

}  // namespace farskip::cli
