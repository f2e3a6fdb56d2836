#include "train/step_log.h"

#include "base/progress.h"
#include "train/load_stats.h"

namespace farskip {

std::string step_text(const StepRecord& record, const StepStats& stats, int64_t train_iters, double left_s) {
  const std::string teacher = stats.distill ? fmt::format("KL: {:.4f} | router drift: {:.1f} % | ", stats.distill->kl,
                                                          100 * stats.distill->mean_drift())
                                            : "";
  return fmt::format(
      " iteration {:8}/{:8} | consumed samples: {:12} | elapsed time per iteration (ms): {:.1f} | tokens per second: "
      "{:.0f} | learning rate: {:.6E} | global batch size: {:5} | lm loss: {:.6E} | {}grad norm: {:.3f} | time left: "
      "{} |",
      record.iteration, train_iters, record.position.consumed_samples + record.position.batch_size, record.step_ms,
      record.tokens_per_second(), stats.lr, record.position.batch_size, stats.loss, teacher, stats.gradient_norm,
      format_duration(left_s));
}

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
  if (const auto& distill = stats.distill) {
    line["kl"] = distill->kl;
    line["cross_entropy"] = distill->cross_entropy;
    if (!distill->drift.empty()) line["router_drift"] = distill->mean_drift();
    if (distill->hidden > 0) line["hidden"] = distill->hidden;
    if (distill->router > 0) line["router"] = distill->router;
  }
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
  if (stats.distill) {
    scalars.emplace_back("kl", stats.distill->kl);
    scalars.emplace_back("cross-entropy", stats.distill->cross_entropy);
    if (!stats.distill->drift.empty()) scalars.emplace_back("router-drift", stats.distill->mean_drift());
  }
  for (size_t layer = 0; layer < stats.load.size(); ++layer) {
    if (stats.load[layer].empty()) continue;
    scalars.emplace_back(fmt::format("expert-load-max-over-mean/layer-{}", layer),
                         load_stats(stats.load[layer]).max_over_mean());
  }
  return scalars;
}

}  // namespace farskip
