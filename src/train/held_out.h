#pragma once
// Early stopping of a distillation: its KL on tokens held out, the weights of its best, and whether to go on.

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/session.h"

namespace farskip {

class HeldOutWatch {
 public:
  /// Weights are kept in SAVE/best where the run saves checkpoints, so that it goes on with them after a crash; else in
  /// memory. Neither where the recipe says keep_best=false.
  HeldOutWatch(const TrainConfig& config, TrainingSession& session) : config_(config), session_(session) {}

  /// To be told every evaluation, in order; called by all ranks with the same figures.
  void heed(int64_t iteration, const DistillStats& stats);
  /// True when `patience` evaluations in a row were no better than the best.
  bool over_patience() const { return config_.distill.patience > 0 && in_a_row_ >= config_.distill.patience; }

  int64_t best_iteration() const { return best_iteration_; }  ///< -1: nothing was evaluated
  double best_kl() const { return best_kl_; }
  bool keeps_weights() const { return best_iteration_ >= 0 && config_.distill.keep_best; }
  /// Makes the kept weights the session's; called by all ranks. REQUIRES: keeps_weights().
  void bring_back();
  /// Whether they lie in memory with nothing of them shared out, so that training can go on from them.
  bool can_begin_anew() const { return keeps_weights() && !on_disk() && !config_.use_distributed_optimizer; }

  /// The figures of the first, the best and the last evaluation, each with its iteration.
  const nlohmann::json& figures() const { return figures_; }
  nlohmann::json to_json() const;
  /// Throws Error for a state that to_json() did not make.
  void from_json(const nlohmann::json& state);

 private:
  bool on_disk() const { return !config_.save.empty(); }
  std::string folder() const { return config_.save + "/best"; }
  void keep();

  const TrainConfig& config_;
  TrainingSession& session_;
  double best_kl_ = 0;
  int64_t best_iteration_ = -1;
  int64_t in_a_row_ = 0;  ///< evaluations since the best
  nlohmann::json figures_;
  std::vector<at::Tensor> kept_;  ///< parameters (frozen ones: empty), then buffers
};

}  // namespace farskip
