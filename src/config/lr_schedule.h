#pragma once
// Learning rate and weight decay over a run, in the shapes and with the formulas of Megatron-LM's
// megatron/core/optimizer_param_scheduler.py. Steps count optimizer steps done, the one at hand included: the first
// step of a run uses step 1 (Megatron updates its scheduler after the optimizer and so trains its first step with step
// 0, whose rate is lr_warmup_init; what both log for an iteration is the same). Steps may be fractions: with a batch
// that grows they are consumed samples / global_batch_size, as Megatron counts samples.

namespace farskip {

enum class LrDecayStyle { constant, linear, cosine, inverse_square_root, wsd };
enum class WsdDecayStyle { exponential, linear, cosine, minus_sqrt };
enum class WeightDecayStyle { constant, linear, cosine };

struct LrSchedule {
  LrDecayStyle style = LrDecayStyle::constant;
  WsdDecayStyle wsd_style = WsdDecayStyle::exponential;  ///< shape of the decay at the end of WSD
  double init_lr = 0;                                    ///< where the warm-up begins
  double max_lr = 0;
  double min_lr = 0;
  double warmup_steps = 0;
  double decay_steps = 0;      ///< step at which the decay, warm-up included, is over
  double wsd_decay_steps = 0;  ///< WSD: steps of the decay at the end; before it the rate is max_lr

  /// Warm-up: init_lr + (max_lr - init_lr) * steps / warmup_steps. Then, with r = (steps - warmup) / (decay - warmup),
  /// min_lr + c * (max_lr - min_lr), where c is 1 - r (linear) or (1 + cos(pi r)) / 2 (cosine); inverse-square-root is
  /// max(min_lr, max_lr * sqrt(max(warmup, 1) / steps)). WSD holds max_lr and then, with r over its decay alone, has c
  /// = 2 * 0.5^r - 1 (exponential), 1 - sqrt(r) (minus_sqrt), or as above. Beyond decay_steps min_lr, but constant
  /// stays at max_lr.
  double at(double steps) const;
};

struct WeightDecaySchedule {
  WeightDecayStyle style = WeightDecayStyle::constant;
  double start = 0;
  double end = 0;
  double incr_steps = 0;  ///< step at which `end` is reached

  /// start + c * (end - start) with r = steps / incr_steps and c = r (linear) or (1 + cos(pi (1 - r))) / 2 (cosine).
  double at(double steps) const;
};

/// What one optimizer step multiplies with.
struct StepRates {
  double lr = 0;
  double decoupled_lr = 0;  ///< of the embedding and the head
  double weight_decay = 0;
};

}  // namespace farskip
