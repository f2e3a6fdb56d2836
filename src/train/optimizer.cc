#include "train/optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace farskip {

double learning_rate(const TrainConfig& config, int64_t iteration) {
  const double done = static_cast<double>(iteration) + 1;
  const double warmup = static_cast<double>(config.lr_warmup_iters);
  if (done <= warmup) return config.lr * done / warmup;
  if (config.lr_decay_style == LrDecayStyle::constant) return config.lr;
  const double decay = static_cast<double>(config.lr_decay_iters.value_or(config.train_iters));
  if (done >= decay) return config.min_lr;
  const double ratio = (done - warmup) / (decay - warmup);
  const double coefficient =
      config.lr_decay_style == LrDecayStyle::linear ? 1 - ratio : 0.5 * (std::cos(std::numbers::pi * ratio) + 1);
  return config.min_lr + coefficient * (config.lr - config.min_lr);
}

AdamW::AdamW(ParameterSet& parameters, const TrainConfig& config)
    : parameters_(parameters),
      beta1_(config.adam_beta1),
      beta2_(config.adam_beta2),
      eps_(config.adam_eps),
      clip_(config.clip_grad),
      groups_{{config.weight_decay, {}, {}, {}, {}, {}}, {0, {}, {}, {}, {}, {}}} {
  for (const ParameterInfo& info : parameters_.table().parameters()) {
    Group& group = groups_[info.decays() ? 0 : 1];
    places_.emplace_back(info.decays() ? 0 : 1, group.ids.size());
    const at::Tensor& main = parameters_.main(info.id);
    group.ids.push_back(info.id);
    group.mains.push_back(main);
    group.exp_avgs.push_back(at::zeros_like(main));
    group.exp_avg_sqs.push_back(at::zeros_like(main));
    group.steps.push_back(at::zeros({}, main.options()));
  }
}

void AdamW::set_num_steps(int64_t num_steps) {
  num_steps_ = num_steps;
  for (Group& group : groups_) {
    for (at::Tensor& steps : group.steps) steps.fill_(static_cast<double>(num_steps));
  }
}

AdamW::SquaredNorms AdamW::squared_norms() {
  SquaredNorms norms;
  for (const ParameterInfo& info : parameters_.table().parameters()) {
    if (!parameters_.has_grad(info.id)) continue;
    const double norm =
        at::linalg_vector_norm(parameters_.main_grad(info.id), 2, {}, false, at::kDouble).item<double>();
    (info.expert ? norms.experts : norms.replicated) += norm * norm;
  }
  return norms;
}

void AdamW::step(double lr, double gradient_norm) {
  at::NoGradGuard no_grad;
  ++num_steps_;
  const double scale = clip_ > 0 ? std::max(1.0, gradient_norm / clip_) : 1.0;
  for (Group& group : groups_) {
    std::vector<at::Tensor> gradients;
    for (int id : group.ids) gradients.push_back(parameters_.main_grad(id));
    if (gradients.empty()) continue;
    if (scale > 1) at::_foreach_div_(gradients, scale);
    at::_foreach_add_(group.steps, 1);
    at::_fused_adamw_(group.mains, gradients, group.exp_avgs, group.exp_avg_sqs, {}, group.steps, lr, beta1_, beta2_,
                      group.weight_decay, eps_, /*amsgrad=*/false, /*maximize=*/false);
  }
  parameters_.update_values();
}

}  // namespace farskip
