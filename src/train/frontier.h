#pragma once
// farskip distill --frontier: how much of a model should be converted. Each connectivity is distilled under one budget
// of tokens, and its quality set beside the time of its steps.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sim/machine.h"
#include "train/bench.h"
#include "train/trainer.h"

namespace farskip {

struct FrontierOptions {
  TrainConfig config;                       ///< of the distillation, resolved; connectivity, export and result replaced
  std::vector<std::string> connectivities;  ///< spellings; the teacher's own is the point of comparison
  BenchLink link;                           ///< calibrated on the teacher's connectivity, then the same for all
  int num_rounds = 30;                      ///< steps of each kind that are timed
  double bearable = 0.01;                   ///< share of the teacher's cross-entropy by which a student may be worse
  std::optional<Machine> machine;           ///< steps are simulated on it, too
  std::string output;                       ///< folder for students, their results, the table and the page
};

struct FrontierPoint {
  std::string connectivity;    ///< as asked for
  bool teacher = false;        ///< the graph that the teacher has: nothing was trained
  nlohmann::json held_out;     ///< HeldOutWatch::figures()
  BenchResult bench;           ///< of training steps of the student alone
  double excess = 0;           ///< cross-entropy above the teacher's, nats a token, of the best weights
  double machine_step_ms = 0;  ///< of FrontierOptions::machine, in the best order that search finds
  // Time of the teacher's graph in its best order over this one's.
  double speedup = 1;            ///< measured
  double simulated_speedup = 1;  ///< simulated with this machine's stage times
  double machine_speedup = 1;    ///< simulated on FrontierOptions::machine
};

struct FrontierResult {
  std::vector<FrontierPoint> points;
  double teacher_loss = 0;  ///< cross-entropy on the held-out tokens
  std::string machine;      ///< FrontierOptions::machine by name; empty without one
  /// The fastest (on the machine, where one is given) that is no worse than bearable; none where that is the teacher's
  /// own graph.
  std::string recommendation;
  Table table() const;
  nlohmann::json to_json() const;
};

/// Runs on this rank; called by all. Rank 0 writes OUTPUT/frontier.json and OUTPUT/frontier.html.
FrontierResult frontier(const FrontierOptions& options, const TrainData& data, RankContext& context);

}  // namespace farskip
