#pragma once
// farskip train: the loop around a session, with schedule, validation, log, checkpoints and report.

#include <nlohmann/json.hpp>

#include "trace/charts.h"
#include "trace/overlap.h"
#include "train/launch.h"
#include "train/session.h"

namespace farskip {

/// What a run leaves behind, on rank 0.
struct TrainSummary {
  std::vector<std::pair<int64_t, double>> losses;             ///< (iteration, training loss)
  std::vector<std::pair<int64_t, double>> validation_losses;  ///< (iteration, validation loss)
  std::vector<double> step_ms;
  std::vector<std::vector<int64_t>> load;  ///< of the last step
  std::string schedule;                    ///< name of the schedule used last
  OverlapSummary overlap;                  ///< of the last recorded step
  Timeline measured, simulated;            ///< of one step, this rank
  std::string connectivity;
};

/// Data of a recipe: training and validation samples.
struct TrainData {
  std::shared_ptr<const SampleDataset> train, valid;  ///< valid: null where the split has none
  /// Throws Error for what the files or the split lack.
  static TrainData open(const TrainConfig& config, int64_t vocab_size);
  bool masked = false;  ///< not every prediction counts
};
/// With a loss mask where the recipe's data has one.
SampleSource samples_of(std::shared_ptr<const SampleDataset> dataset, bool masked);

/// Trains on this rank. `config` is resolved. Returns the summary on every rank (complete on rank 0).
TrainSummary train(const TrainConfig& config, const TrainData& data, RankContext& context);

/// Rows per expert and layer in the last step.
Heatmap expert_load_heatmap(const TrainSummary& summary);

/// Writes the HTML report of one run.
void write_report(const TrainConfig& config, const TrainSummary& summary, const std::string& path);

}  // namespace farskip
