#include "config/train_steering.h"

#include "base/error.h"
#include "config/model_config.h"

namespace farskip {
namespace {

void add_learning_rate(Settings& table, TrainConfig& c) {
  table.add("lr", c.lr, 1e-3, "Largest learning rate.", Range::at_least(0));
  table.add("min_lr", c.min_lr, 0.0, "Learning rate at the end of the decay; at most lr.", Range::at_least(0));
  table.add("lr_warmup_iters", c.lr_warmup_iters, 0,
            "Steps over which the learning rate rises linearly from lr_warmup_init to lr.", Range::at_least(0));
  table.add_optional(
      "lr_warmup_fraction", c.lr_warmup_fraction, "none",
      "The warm-up as a part of lr_decay_iters, instead of lr_warmup_iters. none: lr_warmup_iters holds.",
      Range::between(0, 1));
  table.add("lr_warmup_init", c.lr_warmup_init, 0.0, "Learning rate before the warm-up; at most lr.",
            Range::at_least(0));
  table.add_optional("lr_decay_iters", c.lr_decay_iters, "train_iters",
                     "Step at which the decay, warm-up included, has reached min_lr.", Range::at_least(1));
  table.add_choice(
      "lr_decay_style", c.lr_decay_style, LrDecayStyle::cosine,
      {{LrDecayStyle::cosine, "cosine"},
       {LrDecayStyle::linear, "linear"},
       {LrDecayStyle::constant, "constant"},
       {LrDecayStyle::inverse_square_root, "inverse-square-root"},
       {LrDecayStyle::wsd, "WSD"}},
      "How the learning rate falls from lr to min_lr. WSD (warm-up, stable, decay) holds lr until the last "
      "lr_wsd_decay_iters steps.");
  table.add_choice("lr_wsd_decay_style", c.lr_wsd_decay_style, WsdDecayStyle::exponential,
                   {{WsdDecayStyle::exponential, "exponential"},
                    {WsdDecayStyle::linear, "linear"},
                    {WsdDecayStyle::cosine, "cosine"},
                    {WsdDecayStyle::minus_sqrt, "minus_sqrt"}},
                   "How the learning rate falls at the end of WSD.");
  table.add_optional("lr_wsd_decay_iters", c.lr_wsd_decay_iters, "none",
                     "Steps of the decay at the end of WSD, which needs it. They end with lr_decay_iters.",
                     Range::at_least(1));
  table.add_optional("decoupled_lr", c.decoupled_lr, "lr",
                     "Largest learning rate of the embedding and the head, which follows the same shape.",
                     Range::at_least(0));
  table.add_optional("decoupled_min_lr", c.decoupled_min_lr, "min_lr",
                     "Learning rate of the embedding and the head at the end of the decay; at most decoupled_lr.",
                     Range::at_least(0));
  table.add(
      "lr_multipliers", c.lr_multipliers, "",
      "Words PATTERN=FACTOR: the learning rate of tensors with such names (as a checkpoint has them, * stands for "
      "anything) is multiplied; the last that matches counts. *.mlp.experts.*=0.5 *.self_attn.*=2");
  table.add("freeze", c.freeze, "", "Words PATTERN: tensors that do not change at all. *.mlp.gate.weight *embed*");
}

void add_weight_decay(Settings& table, TrainConfig& c) {
  table.add("weight_decay", c.weight_decay, 0.1, "Decoupled weight decay of matrices; norms and biases have none.",
            Range::at_least(0));
  table.add_optional("start_weight_decay", c.start_weight_decay, "none",
                     "Weight decay at the start, where weight_decay_incr_style is not constant.", Range::at_least(0));
  table.add_optional("end_weight_decay", c.end_weight_decay, "none",
                     "Weight decay at step train_iters, where weight_decay_incr_style is not constant.",
                     Range::at_least(0));
  table.add_choice("weight_decay_incr_style", c.weight_decay_incr_style, WeightDecayStyle::constant,
                   {{WeightDecayStyle::constant, "constant"},
                    {WeightDecayStyle::linear, "linear"},
                    {WeightDecayStyle::cosine, "cosine"}},
                   "How weight decay rises from start_weight_decay to end_weight_decay; constant: weight_decay.");
}

void check_learning_rate(const Settings& table, const TrainConfig& c) {
  if (c.min_lr > c.lr) fail("{} is above {}; lower min_lr", table.describe("min_lr"), table.describe("lr"));
  if (c.lr_warmup_init > c.lr)
    fail("{} is above {}; lower lr_warmup_init", table.describe("lr_warmup_init"), table.describe("lr"));
  if (c.lr_warmup_fraction && c.lr_warmup_iters > 0) {
    fail("{} and {}: give only one of them", table.describe("lr_warmup_fraction"), table.describe("lr_warmup_iters"));
  }
  if (c.lr_warmup_fraction && *c.lr_warmup_fraction >= 1) {
    fail("{}: the decay must end after the warm-up; give less than 1", table.describe("lr_warmup_fraction"));
  }
  if (c.lr_decay_iters && c.lr_warmup_iters >= *c.lr_decay_iters) {
    fail("{}: the decay must end after the warm-up, {}", table.describe("lr_decay_iters"),
         table.describe("lr_warmup_iters"));
  }
  if (c.lr_decay_style == LrDecayStyle::wsd && !c.lr_wsd_decay_iters) {
    fail("{} needs lr_wsd_decay_iters, the steps of its decay", table.describe("lr_decay_style"));
  }
  if (c.lr_decay_style != LrDecayStyle::wsd && c.lr_wsd_decay_iters) {
    fail("{}, but {}; make that WSD, or leave it out", table.describe("lr_wsd_decay_iters"),
         table.describe("lr_decay_style"));
  }
  if (const LrSchedule s = c.lr_schedule();
      c.lr_wsd_decay_iters && s.warmup_steps + s.wsd_decay_steps > s.decay_steps) {
    fail("{}: warm-up ({} steps) and decay do not fit into {} steps; lower it", table.describe("lr_wsd_decay_iters"),
         s.warmup_steps, s.decay_steps);
  }
  const double largest = c.decoupled_lr.value_or(c.lr), smallest = c.decoupled_min_lr.value_or(c.min_lr);
  if (smallest > largest) {
    fail("{}: the embedding's smallest learning rate ({}) is above its largest ({}); lower decoupled_min_lr",
         table.describe("decoupled_min_lr"), smallest, largest);
  }
}

void check_weight_decay(const Settings& table, const TrainConfig& c) {
  const bool constant = c.weight_decay_incr_style == WeightDecayStyle::constant;
  for (const auto& [name, value] :
       {std::pair{"start_weight_decay", c.start_weight_decay}, std::pair{"end_weight_decay", c.end_weight_decay}}) {
    if (constant && value)
      fail("{}, but {}; make that linear or cosine", table.describe(name), table.describe("weight_decay_incr_style"));
    if (!constant && !value) fail("{} needs {}", table.describe("weight_decay_incr_style"), name);
  }
  if (!constant && *c.start_weight_decay > *c.end_weight_decay) {
    fail("{} is above {}; weight decay can only rise", table.describe("start_weight_decay"),
         table.describe("end_weight_decay"));
  }
}

}  // namespace

void add_optimiser(Settings& table, TrainConfig& c) {
  table.section("Optimiser");
  add_learning_rate(table, c);
  add_weight_decay(table, c);
  table.add("adam_beta1", c.adam_beta1, 0.9, "AdamW: decay of the mean of gradients.", Range::between(0, 1));
  table.add("adam_beta2", c.adam_beta2, 0.95, "AdamW: decay of the mean of squared gradients.", Range::between(0, 1));
  table.add("adam_eps", c.adam_eps, 1e-8, "AdamW: added to the root of the mean square.", Range::positive());
  table.add("clip_grad", c.clip_grad, 1.0, "Largest global norm of the gradient; 0: no clipping.", Range::at_least(0));
}

void check_optimiser(const Settings& table, const TrainConfig& c) {
  check_learning_rate(table, c);
  check_weight_decay(table, c);
  if (c.adam_beta1 >= 1 || c.adam_beta2 >= 1)
    fail("{}, {}: both must be below 1", table.describe("adam_beta1"), table.describe("adam_beta2"));
}

void add_guard(Settings& table, TrainConfig& c) {
  table.section("Guard");
  table.add("skip_nonfinite", c.skip_nonfinite, true,
            "Steps whose loss or gradient norm is not finite change nothing; false: they end the run.");
  table.add("loss_spike_factor", c.loss_spike_factor, 0.0,
            "Steps whose loss is above this many times the running median change nothing; 0: off.", Range::at_least(0));
  table.add("grad_spike_factor", c.grad_spike_factor, 0.0,
            "Steps whose gradient norm is above this many times the running median change nothing; 0: off.",
            Range::at_least(0));
  table.add("guard_window", c.guard_window, 100, "Steps of the running medians.", Range::at_least(1));
  table.add(
      "guard_patience", c.guard_patience, 10,
      "So many skipped steps in a row, or a median loss above loss_spike_factor times its lowest, and the run has "
      "to go back to a checkpoint.",
      Range::at_least(1));
}

void check_guard(const Settings& table, const TrainConfig& c) {
  for (const auto& [name, factor] :
       {std::pair{"loss_spike_factor", c.loss_spike_factor}, std::pair{"grad_spike_factor", c.grad_spike_factor}}) {
    if (factor != 0 && factor <= 1)
      fail("{}: half of all steps are above the median; give more than 1, or 0 for none", table.describe(name));
  }
}

void add_router(Settings& table, TrainConfig& c) {
  table.section("Router");
  table.add("moe_router_bias_update_rate", c.moe_router_bias_update_rate, 1e-3,
            "Step of the aux-loss-free balancing bias, for models that have one; 0 keeps it fixed.",
            Range::at_least(0));
  table.add_choice(
      "moe_router_load_balancing_type", c.moe_router_load_balancing_type, LoadBalancing::seq_aux_loss,
      {{LoadBalancing::seq_aux_loss, "seq_aux_loss"},
       {LoadBalancing::aux_loss, "aux_loss"},
       {LoadBalancing::global_aux_loss, "global_aux_loss"},
       {LoadBalancing::none, "none"}},
      "What the auxiliary loss balances: each sequence (DeepSeek-V3), the tokens of each rank's microbatch "
      "(Switch Transformer), those of all ranks and of the step's microbatches so far (arXiv 2501.11873), or nothing.");
  table.add_optional("moe_aux_loss_coeff", c.moe_aux_loss_coeff, "model",
                     "Factor of the auxiliary loss. model: the config.json's aux_loss_alpha.", Range::at_least(0));
  table.add(
      "moe_z_loss_coeff", c.moe_z_loss_coeff, 0.0,
      "Factor of the router's z-loss, the mean of logsumexp(logits)^2, which keeps logits small (ST-MoE); 0: none.",
      Range::at_least(0));
  table.add(
      "moe_router_force_load_balancing", c.moe_router_force_load_balancing, false,
      "For benchmarks only: every expert gets the same number of tokens, whatever the router says. A model trained "
      "like this is worthless.");
}

double TrainConfig::aux_loss_alpha(const ModelConfig& model) const {
  const bool none = moe_router_load_balancing_type == LoadBalancing::none;
  return none ? 0 : moe_aux_loss_coeff.value_or(model.aux_loss_alpha);
}

LrSchedule TrainConfig::lr_schedule() const {
  LrSchedule s;
  s.style = lr_decay_style;
  s.wsd_style = lr_wsd_decay_style;
  s.init_lr = lr_warmup_init;
  s.max_lr = lr;
  s.min_lr = min_lr;
  s.decay_steps = static_cast<double>(lr_decay_iters.value_or(train_iters));
  s.warmup_steps = lr_warmup_fraction ? *lr_warmup_fraction * s.decay_steps : static_cast<double>(lr_warmup_iters);
  s.wsd_decay_steps = static_cast<double>(lr_wsd_decay_iters.value_or(0));
  return s;
}

BatchRamp TrainConfig::batch_ramp() const { return BatchRamp::parse(rampup_batch_size, global_batch_size); }

StepRates TrainConfig::rates(const BatchPosition& position) const {
  const double steps =
      static_cast<double>(position.consumed_samples + position.batch_size) / static_cast<double>(global_batch_size);
  LrSchedule schedule = lr_schedule();
  StepRates result;
  result.lr = schedule.at(steps);
  schedule.max_lr = decoupled_lr.value_or(lr);
  schedule.min_lr = decoupled_min_lr.value_or(min_lr);
  result.decoupled_lr = schedule.at(steps);
  result.weight_decay = WeightDecaySchedule{weight_decay_incr_style, start_weight_decay.value_or(weight_decay),
                                            end_weight_decay.value_or(weight_decay), static_cast<double>(train_iters)}
                            .at(steps);
  return result;
}

}  // namespace farskip
