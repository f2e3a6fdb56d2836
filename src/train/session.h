#pragma once
// Everything one rank needs to run training steps: the model with its weights, the graph of a step, data, optimizer.
// The trainer and the benchmarks are loops around it.

#include <memory>

#include "data/batch_sampler.h"
#include "data/gpt_dataset.h"
#include "distill/calibrate.h"
#include "exec/executor.h"
#include "train/checkpoint_writer.h"
#include "train/sample_reader.h"
#include "train/teacher.h"
#include "train/training_step.h"

namespace farskip {

/// Tokens without a text, for benchmarks: a fixed pseudo-random sequence below vocab_size.
SampleSource synthetic_samples(int64_t seq_length, int64_t vocab_size, uint64_t seed);

/// What a recipe says about the model, put together: shape, connectivity, sequence length.
struct TrainingModel {
  ModelConfig config;
  Connectivity connectivity;
  std::optional<TeacherModel> teacher = std::nullopt;  ///< of a distillation
  std::string reason = {};  ///< why the student has its connectivity, where the recipe does not say which
  /// Reads the model, and the connectivity from the recipe or else from the model's config.json. Throws Error where
  /// either cannot be read, and as check_pair().
  static TrainingModel load(const TrainConfig& config);
};

/// Over tokens that no step trains on.
struct Evaluation {
  double loss = 0;  ///< mean cross-entropy, nats per token
  std::optional<DistillStats> distill = std::nullopt;
};

/// True where `load` names a folder of checkpoints to go on from, and not just weights.
bool resumes(const TrainConfig& config);

class TrainingSession {
 public:
  /// `config` is resolved for world.size() ranks. Loads or initialises the weights; where the run resumes, restore()
  /// brings them. A distillation that calibrates does so on `calibration_tokens`, or on samples where there are none.
  TrainingSession(const TrainConfig& config, World& world, SampleSource samples,
                  const std::vector<int32_t>& calibration_tokens = {});

  /// This rank's microbatches of a step.
  std::vector<Batch> batches(int64_t iteration) const { return make_batches(reader_.read(iteration), iteration); }
  /// Runs one step under `schedule`; updates the weights.
  StepResult step(int64_t iteration, const Schedule& schedule);
  /// See TrainingStep::request.
  void request(bool save, bool end) { training_step_->request(save, end); }
  const StepStats& stats() const { return training_step_->stats(); }
  StepGuard& guard() { return training_step_->guard(); }
  AdamW& optimizer() { return training_step_->optimizer(); }

  /// Over all ranks, of samples [0, num_samples) of `samples`. No weight changes.
  Evaluation evaluate(const SampleSource& samples, int64_t num_samples);

  const TrainConfig& config() const { return config_; }
  const TrainingModel& model() const { return model_; }
  const Layout& layout() const { return layout_; }
  const StageGraph& graph() const { return *graph_; }
  const StageMath& math() const { return *math_; }
  ParameterSet& parameters() { return *parameters_; }
  /// Brings the weights that other ranks' optimizers have updated since the last step, where they are shared out. Each
  /// step does so itself; to be called by all ranks before weights are looked at.
  void gather_weights();
  /// What calibration came to; nothing where there was none.
  const std::optional<CalibrationReport>& calibration() const { return calibration_; }
  const Communicators& communicators() const { return communicators_; }
  bool is_first() const { return communicators_.world->rank() == 0; }
  /// Samples consumed before an iteration, and the size of its batch.
  BatchPosition position(int64_t iteration) const { return ramp_.at(iteration); }

  /// From now on folders of models get the tokenizer that is kept beside this data set (data/vocabulary_record.h), and
  /// its end of a document as eos_token_id. Empty: none.
  void set_vocabulary(const std::string& data_prefix);
  /// Writes the model as a Hugging Face folder; called by all ranks.
  void export_model(const std::string& folder);
  /// Begins to write a checkpoint with what it takes to go on from it; called by all ranks. `state` is completed with
  /// what the session knows.
  void start_checkpoint(CheckpointWriter& writer, TrainingState state);
  /// Restores the newest sound checkpoint of a folder of checkpoints; called by all ranks. Throws Error where the run
  /// would not continue it: another global_batch_size, seq_length or seed.
  TrainingState restore(const std::string& root);

 private:
  void load_weights(const SampleSource& samples, const std::vector<int32_t>& calibration_tokens);
  void calibrate_weights(const at::Tensor& tokens);
  at::Tensor calibration_sequences(const SampleSource& samples, const std::vector<int32_t>& given) const;
  void set_teacher_terms(std::vector<Batch>& batches, int64_t iteration) const;
  ExecutorOptions executor_options() const;
  nlohmann::json model_json() const;  ///< config.json, with the connectivity and the tokenizer's end of text
  std::vector<Batch> make_batches(const StepSamples& samples, int64_t iteration) const;
  /// With a loss mask the loss is a mean over the targets that count, of all ranks and microbatches.
  void set_denominators(std::vector<Batch>& batches);
  Executor& executor_for(const Schedule& schedule);

  TrainConfig config_;
  TrainingModel model_;
  Layout layout_;
  Communicators communicators_;
  std::string vocabulary_;  ///< folder of the tokenizer; empty: none
  int32_t end_of_document_ = -1;
  bool masked_ = false;   ///< samples come with a loss mask
  bool gathered_ = true;  ///< values are those of the last update
  BatchRamp ramp_;
  SampleReader reader_;
  std::unique_ptr<ParameterSet> parameters_;
  std::unique_ptr<ParameterShards> shards_;
  std::unique_ptr<StageMath> math_;
  std::unique_ptr<Teacher> teacher_;  ///< null: none, or in a cache
  std::optional<CalibrationReport> calibration_;
  std::unique_ptr<StageGraph> graph_, evaluation_graph_;
  std::unique_ptr<TrainingStep> training_step_;
  std::vector<std::pair<std::vector<Op>, std::unique_ptr<Executor>>> executors_;  ///< one per schedule seen
};

}  // namespace farskip
