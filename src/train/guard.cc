#include "train/guard.h"

#include <cmath>

#include "base/error.h"
#include "base/stats.h"

namespace farskip {
namespace {

double median_of(const std::deque<double>& values) { return median({values.begin(), values.end()}); }

/// "the loss 9.1 is above 2 * 3.5, ..." or nothing.
std::string spike(const char* what, double value, double factor, const std::deque<double>& history, int64_t window) {
  if (factor == 0 || static_cast<int64_t>(history.size()) < window) return "";
  const double usual = median_of(history);
  if (!(value > factor * usual)) return "";
  return fmt::format("the {} {:.4g} is above {} times the median of the last {} steps, {:.4g}", what, value, factor,
                     window, usual);
}

}  // namespace

StepGuard::Options StepGuard::Options::from(const TrainConfig& config) {
  return {config.skip_nonfinite, config.loss_spike_factor, config.grad_spike_factor, config.guard_window,
          config.guard_patience};
}

std::string StepGuard::complaint(double loss, double gradient_norm) const {
  if (options_.skip_nonfinite) {
    if (!std::isfinite(loss)) return fmt::format("the loss is {}", loss);
    if (!std::isfinite(gradient_norm)) return fmt::format("the gradient norm is {}", gradient_norm);
  }
  const std::string text = spike("loss", loss, options_.loss_spike_factor, losses_, options_.window);
  if (!text.empty()) return text;
  return spike("gradient norm", gradient_norm, options_.grad_spike_factor, norms_, options_.window);
}

bool StepGuard::rises_for_long() {
  if (options_.loss_spike_factor == 0 || static_cast<int64_t>(losses_.size()) < options_.window) return false;
  const double now = median_of(losses_);
  if (lowest_median_ == 0 || now < lowest_median_) lowest_median_ = now;
  if (!(now > options_.loss_spike_factor * lowest_median_)) return false;
  reason_ =
      fmt::format("the median loss of the last {} steps has risen to {:.4g}, more than {} times its lowest, {:.4g}",
                  options_.window, now, options_.loss_spike_factor, lowest_median_);
  return true;
}

Verdict StepGuard::judge(double loss, double gradient_norm) {
  reason_ = complaint(loss, gradient_norm);
  if (reason_.empty()) {
    in_a_row_ = 0;
    for (auto [history, value] : {std::pair{&losses_, loss}, std::pair{&norms_, gradient_norm}}) {
      if (!std::isfinite(value)) continue;  // possible where such steps are not skipped
      history->push_back(value);
      if (static_cast<int64_t>(history->size()) > options_.window) history->pop_front();
    }
    if (!rises_for_long()) return Verdict::apply;
    ++num_skipped_;
    return Verdict::roll_back;
  }
  ++num_skipped_;
  if (++in_a_row_ < options_.patience) return Verdict::skip;
  reason_ += fmt::format("; {} steps in a row were out of line", in_a_row_);
  return Verdict::roll_back;
}

void StepGuard::rolled_back() {
  losses_.clear();
  norms_.clear();
  lowest_median_ = 0;
  in_a_row_ = 0;
  ++num_roll_backs_;
}

nlohmann::json StepGuard::to_json() const {
  return {{"losses", losses_},
          {"norms", norms_},
          {"lowest_median", lowest_median_},
          {"in_a_row", in_a_row_},
          {"num_skipped", num_skipped_},
          {"num_roll_backs", num_roll_backs_}};
}

void StepGuard::from_json(const nlohmann::json& state) {
  StepGuard restored(options_);
  try {
    restored.losses_ = state.at("losses").get<std::deque<double>>();
    restored.norms_ = state.at("norms").get<std::deque<double>>();
    restored.lowest_median_ = state.at("lowest_median");
    restored.in_a_row_ = state.at("in_a_row");
    restored.num_skipped_ = state.at("num_skipped");
    restored.num_roll_backs_ = state.at("num_roll_backs");
  } catch (const nlohmann::json::exception& error) {
    fail("the state of the loss guard cannot be read: {}", error.what());
  }
  // The window may have been made smaller since.
  for (auto* history : {&restored.losses_, &restored.norms_}) {
    while (static_cast<int64_t>(history->size()) > options_.window) history->pop_front();
  }
  *this = std::move(restored);
}

}  // namespace farskip
