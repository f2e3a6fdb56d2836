#pragma once
// Which schedule a run's steps are executed under: the recipe's, or one that is searched for by measured times. No bit
// of the training changes.

#include <string>

#include "exec/profile.h"
#include "sim/exposure.h"
#include "train/session.h"

namespace farskip {

class ScheduleChoice {
 public:
  /// `link`: the emulated one, off where there is none. Throws Error for a schedule that the recipe names and that does
  /// not fit the graph.
  ScheduleChoice(const TrainConfig& config, TrainingSession& session, LinkSpec link);

  const Schedule& schedule() const { return schedule_; }
  bool searching() const { return searching_; }
  /// Goes on with the schedule of a checkpoint, where it would search. `source` is named in errors.
  void restore(const std::string& text, const std::string& source);

  /// A step that was executed under schedule(), `done` of this run before it; called by all ranks. Where enough of them
  /// have been seen the search is made: then true, and schedule() is another one.
  bool observe(const StepResult& step, int64_t done);
  /// What observe() found, in a sentence.
  const std::string& found() const { return found_; }

  /// Times of stages, of this step alone where none were measured before; called by all ranks.
  void measure(const StepResult& last);
  /// What the measured times say of schedule(). REQUIRES: observe() returned true, or measure().
  Timeline simulated() const;
  /// Why something stays exposed, by the same; null before.
  const ExposureHint& hint() const { return hint_; }

 private:
  CostTable modelled_costs() const;
  void set_costs(CostTable costs);

  const TrainConfig& config_;
  TrainingSession& session_;
  const LinkSpec link_;
  CostProfile profile_;
  bool searching_;
  Schedule schedule_;
  CostTable costs_;
  ExposureHint hint_;
  std::string found_;
};

}  // namespace farskip
