#include "train/distill_stats.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace farskip {
namespace {

// Layout of the sums: those of the loss, the two further terms, then tokens with other experts in each MoE layer.
constexpr int64_t hidden_place = nn::num_distill_figures;
constexpr int64_t router_place = hidden_place + 1;
constexpr int64_t first_layer_place = router_place + 1;

}  // namespace

double DistillStats::worst_drift() const { return drift.empty() ? -1 : *std::max_element(drift.begin(), drift.end()); }

double DistillStats::mean_drift() const {
  double sum = 0, layers = 0;
  for (const double share : drift) {
    if (share < 0) continue;
    sum += share;
    ++layers;
  }
  return layers > 0 ? sum / layers : -1;
}

nlohmann::json DistillStats::to_json() const {
  nlohmann::json json{{"kl", kl},
                      {"cross_entropy", cross_entropy},
                      {"teacher_cross_entropy", teacher_cross_entropy},
                      {"top1_agreement", top1},
                      {"tokens", num_tokens}};
  if (!drift.empty()) {
    json["router_drift"] = mean_drift();
    for (size_t layer = 0; layer < drift.size(); ++layer) {
      if (drift[layer] >= 0) json["router_drift_of_layers"].push_back({{"layer", layer}, {"drift", drift[layer]}});
    }
  }
  if (hidden > 0) json["hidden"] = hidden;
  if (router > 0) json["router"] = router;
  return json;
}

int64_t num_distill_sums(const ModelConfig& model) { return first_layer_place + num_moe_layers(model); }

at::Tensor distill_sums(const ModelConfig& model, const std::vector<Microbatch>& microbatches) {
  at::Tensor sums = at::zeros({num_distill_sums(model)}, at::kDouble);
  double* values = sums.data_ptr<double>();
  for (const Microbatch& microbatch : microbatches) {
    const at::Tensor figures = microbatch.figures.cpu();
    for (int64_t i = 0; i < nn::num_distill_figures; ++i) values[i] += figures.const_data_ptr<double>()[i];
    if (microbatch.hidden_loss.defined()) values[hidden_place] += microbatch.hidden_loss.item<double>();
    int64_t place = first_layer_place;
    for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
      if (!model.is_moe(layer)) continue;
      const LayerRouting& routing = microbatch.routing[layer];
      if (routing.router_loss.defined()) {
        values[router_place] += routing.router_loss.item<double>() / static_cast<double>(num_moe_layers(model));
      }
      if (microbatch.teacher) {
        values[place] += static_cast<double>(nn::num_other_experts(microbatch.teacher->routing[layer].ids, routing.ids,
                                                                   microbatch.batch.targets.reshape({-1})));
      }
      ++place;
    }
  }
  return sums;
}

DistillStats distill_stats(const ModelConfig& model, const double* sums, bool experts_known) {
  DistillStats stats;
  stats.num_tokens = sums[nn::num_counted];
  const double tokens = std::max(1.0, stats.num_tokens);
  stats.kl = sums[nn::kl_sum] / tokens;
  stats.cross_entropy = sums[nn::cross_entropy_sum] / tokens;
  stats.teacher_cross_entropy = sums[nn::teacher_cross_entropy_sum] / tokens;
  stats.top1 = sums[nn::same_top1] / tokens;
  stats.hidden = sums[hidden_place];
  stats.router = sums[router_place];
  const double* others = sums + first_layer_place;
  for (int64_t layer = 0; experts_known && layer < model.num_layers(); ++layer) {
    stats.drift.push_back(model.is_moe(layer) ? *others++ / tokens : -1);
  }
  return stats;
}

}  // namespace farskip
