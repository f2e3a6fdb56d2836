#include "train/held_out.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "model/checkpoint.h"

namespace farskip {

void HeldOutWatch::heed(int64_t iteration, const DistillStats& stats) {
  nlohmann::json figures = stats.to_json();
  figures["iteration"] = iteration;
  if (!figures_.contains("initial")) figures_["initial"] = figures;
  figures_["last"] = figures;
  const double limit = best_kl_ * (1 - config_.distill.min_improvement);
  const bool better = std::isfinite(stats.kl) && (best_iteration_ < 0 || stats.kl < limit);
  if (!better) {
    ++in_a_row_;
    return;
  }
  in_a_row_ = 0;
  best_kl_ = stats.kl;
  best_iteration_ = iteration;
  figures_["best"] = figures;
  if (config_.distill.keep_best) keep();
}

void HeldOutWatch::keep() {
  if (on_disk()) return session_.export_model(folder());
  session_.gather_weights();
  const at::NoGradGuard no_grad;
  const ParameterSet& parameters = session_.parameters();
  kept_.clear();
  for (int id = 0; id < parameters.size(); ++id)
    kept_.push_back(parameters.frozen(id) ? at::Tensor() : parameters.stored(id).clone());
  for (size_t i = 0; i < parameters.table().buffers().size(); ++i)
    kept_.push_back(parameters.buffer(static_cast<int>(i)).clone());
}

void HeldOutWatch::bring_back() {
  FARSKIP_CHECK(keeps_weights());
  ParameterSet& parameters = session_.parameters();
  if (on_disk()) {
    load_checkpoint(folder(), parameters);
    return;
  }
  const at::NoGradGuard no_grad;
  for (int id = 0; id < parameters.size(); ++id)
    if (!parameters.frozen(id)) parameters.stored(id).copy_(kept_[static_cast<size_t>(id)]);
  for (size_t i = 0; i < parameters.table().buffers().size(); ++i)
    parameters.buffer(static_cast<int>(i)).copy_(kept_[static_cast<size_t>(parameters.size()) + i]);
  parameters.update_values();
}

nlohmann::json HeldOutWatch::to_json() const {
  return {{"best_kl", best_kl_}, {"best_iteration", best_iteration_}, {"in_a_row", in_a_row_}, {"figures", figures_}};
}

void HeldOutWatch::from_json(const nlohmann::json& state) {
  try {
    best_kl_ = state.at("best_kl");
    best_iteration_ = state.at("best_iteration");
    in_a_row_ = state.at("in_a_row");
    figures_ = state.at("figures");
  } catch (const nlohmann::json::exception& error) {
    fail("the state of the held-out KL cannot be read: {}", error.what());
  }
}

}  // namespace farskip
