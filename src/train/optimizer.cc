#include "train/optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace farskip {

AdamW::AdamW(ParameterSet& parameters, const TrainConfig& config)
    : parameters_(parameters),
      beta1_(config.adam_beta1),
      beta2_(config.adam_beta2),
      eps_(config.adam_eps),
      clip_(config.clip_grad),
      groups_{{true, false, {}, {}, {}, {}, {}}, {true, true, {}, {}, {}, {}, {}}, {false, false, {}, {}, {}, {}, {}}} {
  for (const ParameterInfo& info : parameters_.table().parameters()) {
    const bool decoupled = info.stage == Stage::embed || info.stage == Stage::head;
    const size_t place = !info.decays() ? 2 : decoupled ? 1 : 0;
    Group& group = groups_[place];
    places_.emplace_back(place, group.ids.size());
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

void AdamW::step(const StepRates& rates, double gradient_norm) {
  at::NoGradGuard no_grad;
  ++num_steps_;
  const double scale = clip_ > 0 ? std::max(1.0, gradient_norm / clip_) : 1.0;
  for (Group& group : groups_) {
    std::vector<at::Tensor> gradients;
    for (int id : group.ids) gradients.push_back(parameters_.main_grad(id));
    if (gradients.empty()) continue;
    if (scale > 1) at::_foreach_div_(gradients, scale);
    at::_foreach_add_(group.steps, 1);
    at::_fused_adamw_(group.mains, gradients, group.exp_avgs, group.exp_avg_sqs, {}, group.steps,
                      group.decoupled ? rates.decoupled_lr : rates.lr, beta1_, beta2_,
                      group.decays ? rates.weight_decay : 0, eps_, /*amsgrad=*/false, /*maximize=*/false);
  }
  parameters_.update_values();
}

}  // namespace farskip
