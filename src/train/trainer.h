#pragma once
// farskip train: the loop around a session, with schedule, validation, log, checkpoints and report.

#include <nlohmann/json.hpp>

#include "trace/charts.h"
#include "trace/overlap.h"
#include "train/launch.h"
#include "train/session.h"
#include "train/train_data.h"

namespace farskip {

/// What a run leaves behind, on rank 0.
struct TrainSummary {
  std::vector<std::pair<int64_t, double>> losses;             ///< (iteration, training loss)
  std::vector<std::pair<int64_t, double>> validation_losses;  ///< (iteration, validation loss)
  nlohmann::json held_out;                                    ///< a distillation's HeldOutWatch::figures()
  std::vector<std::vector<int64_t>> load;                     ///< of the last step
  std::string schedule;                                       ///< name of the schedule used last
  OverlapSummary overlap;                                     ///< of the last recorded step
  Timeline measured, simulated;                               ///< of one step, this rank
  std::string connectivity;
};

/// Trains on this rank; called by all. `config` is resolved. Returns the summary on every rank (complete on rank 0).
/// Throws Error for a model, data or checkpoint that cannot be read or do not fit, a loss that is lost for good, a full
/// disk.
TrainSummary train(const TrainConfig& config, const TrainData& data, RankContext& context);

}  // namespace farskip
