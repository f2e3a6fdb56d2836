// The HTML report of a training run, and why collectives are exposed.

#include <algorithm>

#include "base/files.h"
#include "trace/render.h"
#include "trace/report.h"
#include "train/trainer.h"

namespace farskip {

std::vector<NodeId> unhideable(const StageGraph& graph) {
  const int n = graph.num_nodes();
  std::vector<std::vector<bool>> before(n, std::vector<bool>(n, false));  // [node][its ancestors]
  for (NodeId id = 0; id < n; ++id) {
    for (NodeId p : graph.predecessors(id)) {
      before[id][p] = true;
      for (NodeId a = 0; a < p; ++a) {
        if (before[p][a]) before[id][a] = true;
      }
    }
  }
  std::vector<NodeId> result;
  for (NodeId c = 0; c < n; ++c) {
    if (!graph.node(c).is_collective()) continue;
    const bool alone = std::none_of(graph.nodes().begin(), graph.nodes().end(), [&](const Node& other) {
      const auto id = static_cast<NodeId>(&other - graph.nodes().data());
      // Other microbatches would have to be in flight at the same time, which memory does not allow by default.
      const bool same = other.microbatch == graph.node(c).microbatch || graph.node(c).microbatch < 0;
      return same && !other.is_collective() && !before[c][id] && !before[id][c];
    });
    if (alone) result.push_back(c);
  }
  return result;
}

ExposureHint exposure_hint(const StageGraph& graph, bool overlapped) {
  std::vector<std::string> names;
  for (NodeId id : unhideable(graph)) names.push_back(graph.name(id));
  return [names, overlapped](const CollectiveTiming& timing) {
    if (std::find(names.begin(), names.end(), timing.name) != names.end()) return Exposure::first_or_last_layer;
    return overlapped ? Exposure::none : Exposure::not_enabled;
  };
}

void write_report(const TrainConfig& config, const TrainSummary& summary, const std::string& path) {
  HtmlReport report("farskip train: " + config.model,
                    fmt::format("{}, layout {}, schedule {}", summary.connectivity, config.layout, summary.schedule));
  LineChart losses{"Loss", "iteration", "nats per token", {}, false, false};
  Series training{"training", {}}, validation{"validation", {}};
  for (const auto& [iteration, loss] : summary.losses)
    training.points.emplace_back(static_cast<double>(iteration), loss);
  for (const auto& [iteration, loss] : summary.validation_losses)
    validation.points.emplace_back(static_cast<double>(iteration), loss);
  losses.series = {training};
  if (!validation.points.empty()) losses.series.push_back(validation);
  report.add_line_chart(losses);
  report.add_heading("Overlap of the last step");
  report.add_bar_chart(overlap_bars("Communication per collective", summary.overlap));
  report.add_table(overlap_table(summary.overlap));
  report.add_heading("Timeline of the last step");
  report.add_timeline(render_svg({summary.simulated, summary.measured}), "simulated above, measured below, rank 0");
  Heatmap load{"Expert load of the last step", "layer", "expert", {}, {}, {}, "rows", std::nullopt};
  for (size_t layer = 0; layer < summary.load.size(); ++layer) {
    if (summary.load[layer].empty()) continue;
    load.rows.push_back(std::to_string(layer));
    load.values.emplace_back(summary.load[layer].begin(), summary.load[layer].end());
  }
  if (!load.values.empty()) {
    for (size_t e = 0; e < load.values[0].size(); ++e) load.columns.push_back(std::to_string(e));
    report.add_heading("Experts");
    report.add_heatmap(load);
  }
  report.add_heading("Recipe");
  report.add_details("settings", train_recipe(config));
  write_file(path, report.html());
}

}  // namespace farskip
