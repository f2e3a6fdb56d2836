#pragma once
// Tasks run with a model, on one rank or several, and what came of them.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/journal.h"
#include "eval/task.h"
#include "infer/inference_model.h"
#include "transport/transport.h"

namespace farskip {

struct EvalOptions {
  int64_t batch_tokens = 4096;            ///< read in a step; one item is never divided
  int64_t max_num_seqs = 32;              ///< answers: questions that are continued together
  std::vector<int32_t> stop_tokens = {};  ///< answers: each ends one
  std::string output = {};                ///< the file of results; empty: none, and nothing can be gone on with
  bool overwrite = false;                 ///< of whatever stands there
  std::string samples = {};               ///< a JSONL file of every item's result; empty: none
};

/// What is evaluated with what: the head of the journal, and the part "evaluation" of the results. Two evaluations are
/// the same where these are. `models`: one entry for the model and perhaps one for what it is compared with.
nlohmann::json evaluation_head(const nlohmann::json& models, const std::vector<EvalTask>& tasks,
                               const EvalOptions& options);

/// {"model": folder, "evaluation": head, "tasks": [figures of each]} on rank 0, null on the others. All ranks of the
/// models' layout call it with the same tasks: batches are the same however many ranks there are, and each goes to one
/// of them (with tp=N to all together, with ep=N to each one of its own). `against` may be null: the model that `model`
/// is compared with on texts. Rank 0 shows progress, goes on with a journal at options.output and writes the results
/// there; where they are there already nothing is computed. `text` decodes answers. Throws Error where models differ in
/// vocabulary, where what stands at options.output is of another evaluation, and for logits that are not finite.
nlohmann::json evaluate(const InferenceModel& model, const InferenceModel* against, const std::vector<EvalTask>& tasks,
                        const TaskText& text, const nlohmann::json& head, World& world, const EvalOptions& options);

/// The results of `output` where they are complete and of this evaluation; null: there are none. Throws Error where
/// they are of another one.
nlohmann::json finished_results(const nlohmann::json& head, const EvalOptions& options);

}  // namespace farskip
