#include "train/step_log.h"

#include "train/load_stats.h"

namespace farskip {

nlohmann::json step_line(const StepRecord& record, const StepStats& stats, const std::string& reason) {
  nlohmann::json line{{"iteration", record.iteration},
                      {"lm_loss", stats.loss},
                      {"grad_norm", stats.gradient_norm},
                      {"learning_rate", stats.lr},
                      {"step_ms", record.step_ms},
                      {"batch_size", record.position.batch_size},
                      {"consumed_samples", record.position.consumed_samples + record.position.batch_size}};
  if (stats.aux_loss > 0) line["load_balancing_loss"] = stats.aux_loss;
  if (stats.z_loss > 0) line["z_loss"] = stats.z_loss;
  if (stats.verdict != Verdict::apply) line["skipped"] = reason;
  for (size_t layer = 0; layer < stats.load.size(); ++layer) {
    if (stats.load[layer].empty()) continue;
    const LoadStats load = load_stats(stats.load[layer]);
    line["experts"].push_back({{"layer", layer},
                               {"max_load", load.max},
                               {"mean_load", load.mean},
                               {"entropy", load.entropy},
                               {"unused", load.unused}});
  }
  return line;
}

std::vector<std::pair<std::string, double>> step_scalars(const StepRecord& record, const StepStats& stats) {
  std::vector<std::pair<std::string, double>> scalars = {
      {"lm loss", stats.loss},
      {"learning-rate", stats.lr},
      {"grad-norm", stats.gradient_norm},
      {"batch-size", static_cast<double>(record.position.batch_size)},
      {"iteration-time", record.step_ms / 1e3},
      {"tokens-per-second", record.tokens_per_second()}};
  if (stats.aux_loss > 0) scalars.emplace_back("load_balancing_loss", stats.aux_loss);
  if (stats.z_loss > 0) scalars.emplace_back("z_loss", stats.z_loss);
  for (size_t layer = 0; layer < stats.load.size(); ++layer) {
    if (stats.load[layer].empty()) continue;
    scalars.emplace_back(fmt::format("expert-load-max-over-mean/layer-{}", layer),
                         load_stats(stats.load[layer]).max_over_mean());
  }
  return scalars;
}

}  // namespace farskip
