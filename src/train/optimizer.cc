#include "train/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "nn/adamw.h"
#include "train/parameter_rates.h"

namespace farskip {

AdamW::AdamW(ParameterSet& parameters, ParameterShards& shards, const TrainConfig& config)
    : parameters_(parameters),
      shards_(shards),
      beta1_(config.adam_beta1),
      beta2_(config.adam_beta2),
      eps_(config.adam_eps),
      clip_(config.clip_grad),
      factors_(parameter_rates(parameters.table(), config)) {
  for (int id = 0; id < parameters_.size(); ++id) {
    FARSKIP_CHECK(parameters_.frozen(id) == (factors_[static_cast<size_t>(id)] == 0), parameters_.table()[id].name);
  }
  for (size_t slice = 0; slice < shards_.slices().size(); ++slice) {
    for (auto* moments : {&exp_avgs_, &exp_avg_sqs_}) moments->push_back(at::zeros_like(shards_.main(slice)));
  }
}

AdamW::SquaredNorms AdamW::squared_norms() {
  SquaredNorms norms;
  for (size_t slice = 0; slice < shards_.slices().size(); ++slice) {
    (parameters_.table()[shards_.slices()[slice].id].expert ? norms.experts : norms.replicated) +=
        nn::squared_norm(shards_.gradient(slice));
  }
  return norms;
}

void AdamW::forget() {
  for (size_t slice = 0; slice < shards_.slices().size(); ++slice) {
    exp_avgs_[slice].zero_();
    exp_avg_sqs_[slice].zero_();
  }
  num_steps_ = 0;
}

void AdamW::step(const StepRates& rates, double gradient_norm) {
  const at::NoGradGuard no_grad;
  ++num_steps_;
  const double divisor = clip_ > 0 ? std::max(1.0, gradient_norm / clip_) : 1.0;
  for (size_t slice = 0; slice < shards_.slices().size(); ++slice) {
    const ParameterInfo& info = parameters_.table()[shards_.slices()[slice].id];
    const bool decoupled = info.stage == Stage::embed || info.stage == Stage::head;
    const double factor = factors_[static_cast<size_t>(info.id)];
    const double lr = factor * (info.decays() && decoupled ? rates.decoupled_lr : rates.lr);
    nn::adamw_(shards_.main(slice), shards_.gradient(slice), exp_avgs_[slice], exp_avg_sqs_[slice],
               {lr, beta1_, beta2_, eps_, info.decays() ? rates.weight_decay : 0, divisor, num_steps_});
  }
  parameters_.update_values();
}

}  // namespace farskip
