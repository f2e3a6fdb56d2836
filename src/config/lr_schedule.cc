#include "config/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace farskip {
namespace {

/// Falls from 1 at r = 0 to 0 at r = 1.
double half_cosine(double r) { return 0.5 * (std::cos(std::numbers::pi * r) + 1); }

double wsd_coefficient(WsdDecayStyle style, double r) {
  switch (style) {
    case WsdDecayStyle::linear:
      return 1 - r;
    case WsdDecayStyle::cosine:
      return half_cosine(r);
    case WsdDecayStyle::exponential:
      return 2 * std::pow(0.5, r) - 1;
    case WsdDecayStyle::minus_sqrt:
      break;
  }
  return 1 - std::sqrt(r);
}

}  // namespace

double LrSchedule::at(double steps) const {
  if (warmup_steps > 0 && steps <= warmup_steps) return init_lr + (max_lr - init_lr) * steps / warmup_steps;
  if (style == LrDecayStyle::constant) return max_lr;
  if (steps > decay_steps) return min_lr;
  const double ratio = (steps - warmup_steps) / (decay_steps - warmup_steps);
  double coefficient = 1;
  if (style == LrDecayStyle::inverse_square_root) {
    return std::max(min_lr, max_lr * std::sqrt(std::max(warmup_steps, 1.0) / std::max(steps, 1.0)));
  } else if (style == LrDecayStyle::linear) {
    coefficient = 1 - ratio;
  } else if (style == LrDecayStyle::cosine) {
    coefficient = half_cosine(ratio);
  } else if (const double begin = decay_steps - wsd_decay_steps; steps > begin) {
    coefficient = wsd_coefficient(wsd_style, (steps - begin) / wsd_decay_steps);
  }
  return min_lr + coefficient * (max_lr - min_lr);
}

double WeightDecaySchedule::at(double steps) const {
  if (style == WeightDecayStyle::constant || steps > incr_steps) return end;
  const double ratio = steps / incr_steps;
  const double coefficient = style == WeightDecayStyle::linear ? ratio : half_cosine(1 - ratio);
  return start + coefficient * (end - start);
}

}  // namespace farskip
