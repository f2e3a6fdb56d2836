#pragma once
// One task on one rank: batches of its items through the model, and through the one it is compared with.

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "eval/batches.h"
#include "eval/metrics.h"
#include "eval/scorer.h"

namespace farskip {

struct TaskRunOptions {
  std::vector<int32_t> stop_tokens = {};  ///< answers
};

class TaskRun {
 public:
  /// `against` may be null. All of it must outlive the run; `batches` are those that run() may be given.
  TaskRun(const EvalTask& task, const std::vector<ItemBatch>& batches, const InferenceModel& model,
          const InferenceModel* against, const Communicators& communicators, const TaskText& text,
          TaskRunOptions options);

  /// The results of a batch's items. Called by all ranks of an expert communicator: with the same batch where all have
  /// all sequences, else with one of their own, or null for none. Throws Error for logits that are not finite.
  std::vector<ItemResult> run(const ItemBatch* batch);

  /// MoE layers whose routers are compared; empty without `against`, or where the models' routers are not alike.
  static std::vector<int64_t> drift_layers(const ModelConfig& model, const ModelConfig* against);

 private:
  std::vector<ItemResult> score(const ItemBatch* batch);
  std::vector<ItemResult> answer(const ItemBatch* batch);
  std::vector<ItemResult> compare(const ItemBatch& batch, const at::Tensor& logits, const at::Tensor& others,
                                  const std::vector<int32_t>& targets) const;

  const EvalTask& task_;
  const InferenceModel& model_;
  const Communicators& communicators_;
  const TaskText& text_;
  TaskRunOptions options_;
  std::vector<int64_t> drift_layers_;
  std::unique_ptr<Scorer> scorer_, against_;
  std::unique_ptr<Decoder> decoder_;  ///< answers
};

}  // namespace farskip
