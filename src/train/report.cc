// The HTML report of a training run.

#include "trace/report.h"
#include "base/files.h"
#include "trace/render.h"
#include "train/trainer.h"

namespace farskip {

Heatmap expert_load_heatmap(const TrainSummary& summary) {
  Heatmap load{"Expert load of the last step", "layer", "expert", {}, {}, {}, "rows", std::nullopt};
  for (size_t layer = 0; layer < summary.load.size(); ++layer) {
    if (summary.load[layer].empty()) continue;
    load.rows.push_back(std::to_string(layer));
    load.values.emplace_back(summary.load[layer].begin(), summary.load[layer].end());
    load.columns.clear();
    for (size_t e = 0; e < load.values[0].size(); ++e) load.columns.push_back(std::to_string(e));
  }
  return load;
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
  report.add_heading("Experts");
  report.add_heatmap(expert_load_heatmap(summary));
  report.add_heading("Recipe");
  report.add_details("settings", train_recipe(config));
  write_file(path, report.html());
}

}  // namespace farskip
