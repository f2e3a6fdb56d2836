#pragma once
// What a training step does besides its stages: statistics over ranks, clipping, AdamW, and the router's bias.

#include <optional>

#include "exec/executor.h"
#include "train/distill_stats.h"
#include "train/guard.h"
#include "train/optimizer.h"

namespace farskip {

/// Figures of one step, the same on all ranks.
struct StepStats {
  double loss = 0;           ///< mean over the global batch, nats per token: cross-entropy, or a distillation's loss
  double aux_loss = 0;       ///< mean over microbatches and ranks of the sum over layers
  double z_loss = 0;         ///< the same of the router's z-loss
  double gradient_norm = 0;  ///< before clipping
  double lr = 0;
  int save_requests = 0;                   ///< ranks that were asked for a checkpoint
  int end_requests = 0;                    ///< ranks that were asked for one and then to end
  std::vector<std::vector<int64_t>> load;  ///< per layer, rows of each expert in the global batch; empty: dense layer
  Verdict verdict = Verdict::apply;        ///< otherwise the step has changed nothing
  std::optional<DistillStats> distill = std::nullopt;
};

/// What a recipe says about the router's losses.
void add_router_losses(StageMathOptions& options, const TrainConfig& config, const ModelConfig& model);

class TrainingStep : public StepHooks {
 public:
  TrainingStep(const ModelConfig& model, ParameterSet& parameters, ParameterShards& shards, const TrainConfig& config,
               const Layout& layout, int rank);

  /// The step that the executor runs next; sets its learning rate and weight decay.
  void begin(const BatchPosition& position) { rates_ = config_.rates(position); }
  /// This rank was asked to save, or to save and end; after the next step all ranks know (StepStats).
  void request(bool save, bool end) { requests_ = {save ? 1.0 : 0.0, end ? 1.0 : 0.0}; }
  AdamW& optimizer() { return optimizer_; }
  /// Of the last step.
  const StepStats& stats() const { return stats_; }
  /// Judges each step before it changes weights, moments or router biases; alike on all ranks.
  StepGuard& guard() { return guard_; }

  at::Tensor local_stats(const std::vector<Microbatch>& microbatches, const std::vector<at::Tensor>& losses) override;
  void optimize(const at::Tensor& stats) override;
  ParameterShards& shards() override { return shards_; }

 private:
  void update_router_bias();

  const ModelConfig model_;
  ParameterSet& parameters_;
  ParameterShards& shards_;
  const TrainConfig config_;
  AdamW optimizer_;
  StepGuard guard_;
  bool first_replica_;             ///< counts its experts' gradients in the norm
  double replicated_squares_ = 0;  ///< where every rank has all of them
  std::pair<double, double> requests_;
  StepRates rates_;
  StepStats stats_;
};

}  // namespace farskip
