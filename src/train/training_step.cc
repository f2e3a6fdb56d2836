#include "train/training_step.h"

#include <ATen/ATen.h>

#include <cmath>

namespace farskip {

TrainingStep::TrainingStep(const ModelConfig& model, ParameterSet& parameters, ParameterShards& shards,
                           const TrainConfig& config, const Layout& layout, int rank)
    : model_(model),
      parameters_(parameters),
      shards_(shards),
      config_(config),
      optimizer_(parameters, shards, config),
      guard_(StepGuard::Options::from(config)),
      first_replica_(rank / layout.ep == 0) {}

void add_router_losses(StageMathOptions& options, const TrainConfig& config, const ModelConfig& model) {
  const auto type = config.moe_router_load_balancing_type;
  options.aux_loss_alpha = config.aux_loss_alpha(model);
  options.aux_scope = type == LoadBalancing::aux_loss          ? nn::AuxScope::microbatch
                      : type == LoadBalancing::global_aux_loss ? nn::AuxScope::global
                                                               : nn::AuxScope::sequence;
  options.z_loss_coeff = config.moe_z_loss_coeff;
}

// Layout of the vector: loss, auxiliary loss, z-loss, squared norm of the gradients that no other rank counts, requests
// to save and to end, then the load of each MoE layer, then what a distillation adds up.
at::Tensor TrainingStep::local_stats(const std::vector<Microbatch>& microbatches,
                                     const std::vector<at::Tensor>& losses) {
  const auto norms = optimizer_.squared_norms();
  const bool shared_out = optimizer_.shards().sharded();
  replicated_squares_ = shared_out ? 0 : norms.replicated;
  const double own = shared_out ? norms.replicated + norms.experts : first_replica_ ? norms.experts : 0;
  std::vector<double> values = {0, 0, 0, own, requests_.first, requests_.second};
  for (const auto& loss : losses) values[0] += loss.item<double>();
  for (const auto& microbatch : microbatches) {
    for (const auto& routing : microbatch.routing) {
      if (routing.aux_loss.defined()) values[1] += microbatch.batch.share * routing.aux_loss.item<double>();
      if (routing.z_loss.defined()) values[2] += microbatch.batch.share * routing.z_loss.item<double>();
    }
  }
  at::Tensor stats = at::tensor(values, at::kDouble);
  for (int64_t layer = 0; layer < model_.num_layers(); ++layer) {
    if (!model_.is_moe(layer)) continue;
    at::Tensor load = at::zeros({model_.num_experts}, at::kDouble);
    for (const auto& microbatch : microbatches) load += microbatch.routing[layer].load.to(at::kDouble).cpu();
    stats = at::cat({stats, load});
  }
  if (config_.distill.wanted()) stats = at::cat({stats, distill_sums(model_, microbatches)});
  return stats;
}

void TrainingStep::optimize(const at::Tensor& sums) {
  const at::Tensor stats = sums.cpu().contiguous();
  const double* values = stats.data_ptr<double>();
  stats_.loss = values[0];
  stats_.aux_loss = values[1];
  stats_.z_loss = values[2];
  // In fp32, where the order in which ranks and slices are added up does not show.
  stats_.gradient_norm = static_cast<float>(std::sqrt(replicated_squares_ + values[3]));
  stats_.lr = rates_.lr;
  stats_.load.assign(model_.num_layers(), {});
  stats_.save_requests = static_cast<int>(values[4]);
  stats_.end_requests = static_cast<int>(values[5]);
  const double* load = values + 6;
  for (int64_t layer = 0; layer < model_.num_layers(); ++layer) {
    if (!model_.is_moe(layer)) continue;
    for (int64_t e = 0; e < model_.num_experts; ++e) stats_.load[layer].push_back(std::llround(*load++));
  }
  if (config_.distill.wanted()) stats_.distill = distill_stats(model_, load, config_.distill.teacher_cache.empty());
  stats_.verdict = guard_.judge(stats_.loss, stats_.gradient_norm);
  if (stats_.verdict == Verdict::apply) optimizer_.step(rates_, stats_.gradient_norm);
  shards_.release_gradients();
  if (stats_.verdict != Verdict::apply) return;
  if (model_.router.correction_bias) update_router_bias();
}

/// Auxiliary-loss-free balancing (DeepSeek-V3, section 2.1.2): an expert above the mean load loses bias, one below
/// gains.
void TrainingStep::update_router_bias() {
  const double rate = config_.moe_router_bias_update_rate;
  if (rate == 0) return;
  const auto& buffers = parameters_.table().buffers();
  for (size_t i = 0; i < buffers.size(); ++i) {
    const auto& load = stats_.load[buffers[i].layer];
    double mean = 0;
    for (int64_t rows : load) mean += static_cast<double>(rows) / static_cast<double>(load.size());
    std::vector<float> change;
    for (int64_t rows : load) {
      const double error = mean - static_cast<double>(rows);
      change.push_back(static_cast<float>(error > 0 ? rate : error < 0 ? -rate : 0));
    }
    at::Tensor bias = parameters_.buffer(static_cast<int>(i));
    bias.add_(at::tensor(change).to(bias.device()));
  }
}

}  // namespace farskip
