#pragma once
// What keeps one bad step from spoiling a long run: each step is judged by its loss and gradient norm before the
// optimizer sees it. A pure function of what it was fed, so that ranks that see the same figures decide alike, and its
// state fits into a checkpoint.

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>

#include "config/train_config.h"

namespace farskip {

enum class Verdict { apply, skip, roll_back };

/// A step is out of line if its loss or norm is not finite, or above its factor times the running median, which is
/// that of the last `window` applied steps (and says nothing before there are as many). Out of line, a step is skipped;
/// the `patience`-th in a row asks for a roll-back, and so does a sustained rise: a running median of the loss above
/// loss_spike_factor times the lowest one.
class StepGuard {
 public:
  struct Options {
    bool skip_nonfinite = true;
    double loss_spike_factor = 0;  ///< 0: losses are not compared
    double grad_spike_factor = 0;  ///< 0: norms are not compared
    int64_t window = 100;
    int64_t patience = 10;
    static Options from(const TrainConfig& config);
  };
  explicit StepGuard(const Options& options) : options_(options) {}

  /// Of the step at hand; skip and roll_back both mean that it changes nothing.
  Verdict judge(double loss, double gradient_norm);
  /// Why the last step was not applied: "the loss is nan", "gradient norm 71.3 is above 5 * 2.1"; empty: it was.
  const std::string& reason() const { return reason_; }
  int64_t num_skipped() const { return num_skipped_; }
  int64_t num_roll_backs() const { return num_roll_backs_; }

  /// To be told when weights and moments of a checkpoint have been restored. What was seen is forgotten, the counts
  /// stay; the run goes on with the next batch, so those that did the damage are left out (as PaLM did, arXiv
  /// 2204.02311, section 5.1).
  void rolled_back();

  nlohmann::json to_json() const;
  /// Restores what to_json() of a guard gave. Throws Error for a state that is none.
  void from_json(const nlohmann::json& state);

 private:
  std::string complaint(double loss, double gradient_norm) const;
  bool rises_for_long();

  Options options_;
  std::deque<double> losses_, norms_;  ///< of the last applied steps, oldest first
  double lowest_median_ = 0;           ///< of the loss; 0: none yet
  int64_t in_a_row_ = 0;               ///< steps not applied since the last that was
  int64_t num_skipped_ = 0;
  int64_t num_roll_backs_ = 0;
  std::string reason_;
};

}  // namespace farskip
