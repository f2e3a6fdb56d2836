#include "train/session.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"
#include "config/checkpoint_folder.h"
#include "data/vocabulary_record.h"
#include "layer/export_config.h"
#include "layer/training_graph.h"
#include "model/checkpoint.h"
#include "nn/loss.h"
#include "schedule/schedule.h"
#include "schedule/text.h"
#include "schedule/validate.h"
#include "tokenizer/tokenizer.h"
#include "train/parameter_rates.h"
#include "train/sample_batch.h"

namespace farskip {

SampleSource synthetic_samples(int64_t seq_length, int64_t vocab_size, uint64_t seed) {
  return [=](int64_t i) {
    Philox random(seed, static_cast<uint64_t>(i));
    std::vector<int32_t> tokens(seq_length + 1);
    for (auto& token : tokens) token = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab_size)));
    return tokens;
  };
}

TrainingModel TrainingModel::load(const TrainConfig& config) {
  TrainingModel model;
  const bool distills = config.distill.wanted();
  model.config = load_model_config(distills              ? student_folder(config)
                                   : config.load.empty() ? config.model
                                                         : config.load);
  model.config.router.force_balance = config.moe_router_force_load_balancing;
  const int64_t layers = model.config.num_layers();
  if (distills) model.teacher = TeacherModel::load(config);
  model.connectivity = config.connectivity.empty() ? Connectivity::from_config(model.config.raw, layers)
                                                   : Connectivity::parse(config.connectivity, layers);
  if (!config.load.empty() && !config.connectivity.empty() &&
      model.connectivity != Connectivity::from_config(model.config.raw, layers)) {
    fail(
        "load={}: the checkpoint's connectivity is {}, the recipe says {}; connectivity belongs to the weights, so "
        "leave "
        "it out of the recipe",
        config.load, Connectivity::from_config(model.config.raw, layers).to_string(), model.connectivity.to_string());
  }
  if (!distills) return model;
  if (config.load.empty() && config.connectivity.empty()) {
    ChosenConnectivity chosen = default_student(model.config);
    model.connectivity = std::move(chosen.connectivity);
    model.reason = std::move(chosen.reason);
  }
  check_pair(config, *model.teacher, model.config, model.connectivity);
  return model;
}

bool resumes(const TrainConfig& config) {
  return !config.finetune && !config.load.empty() && is_checkpoint_root(config.load);
}

namespace {

/// What this rank reads for a step.
SampleReader::Read samples_of_steps(const TrainConfig& config, const World& world, SampleSource samples) {
  return [samples = std::move(samples), ramp = config.batch_ramp(), num_microbatches = config.num_microbatches(),
          micro_batch_size = config.micro_batch_size, ranks = world.size(), rank = world.rank()](int64_t iteration) {
    const BatchPosition at = ramp.at(iteration);
    const BatchSampler sampler(at.batch_size, micro_batch_size, ranks);
    StepSamples result(static_cast<size_t>(num_microbatches));
    // The last microbatches of a batch that still grows are empty: one graph serves all.
    for (int64_t m = 0; m < sampler.num_microbatches(); ++m) {
      for (int64_t i : sampler.samples(0, m, rank)) result[m].push_back(samples(at.consumed_samples + i));
    }
    return result;
  };
}

}  // namespace

TrainingSession::TrainingSession(const TrainConfig& config, World& world, SampleSource samples,
                                 const std::vector<int32_t>& calibration_tokens)
    : config_(config),
      model_(TrainingModel::load(config)),
      layout_(Layout::parse(config.layout)),
      communicators_(Communicators::make(world, layout_)),
      masked_(config.train_iters > 0 && !samples(0).loss_mask.empty()),
      ramp_(config.batch_ramp()),
      reader_(samples_of_steps(config, world, samples), config.train_iters, config.prefetch_steps) {
  const auto table = std::make_shared<const ParameterTable>(model_.config);
  ParameterOptions options;
  options.dtype = config_.dtype == TrainDtype::bf16 ? at::kBFloat16 : at::kFloat;
  options.expert_rank = world.rank() % layout_.ep;
  options.expert_ranks = layout_.ep;
  options.frozen = frozen_parameters(*table, config_);
  parameters_ = std::make_unique<ParameterSet>(table, options);
  load_weights(samples, calibration_tokens);
  shards_ = std::make_unique<ParameterShards>(*parameters_, layout_, world.rank(), config_.use_distributed_optimizer);
  StageMathOptions math;
  math.expert_ranks = layout_.ep;
  const bool beside = config_.distill.wanted() && config_.distill.teacher_cache.empty();
  GraphOptions graph =
      training_graph(config_, model_.config, beside ? std::optional(model_.teacher->connectivity) : std::nullopt);
  math.recompute_norms = graph.recompute.layernorm;
  math.recompute_activations = graph.recompute.moe_act;
  add_router_losses(math, config_, model_.config);
  const DistillSettings& distill = config_.distill;
  if (distill.wanted()) {
    math.distill = true;
    math.distill_loss = {distill.temperature, distill.cross_entropy_weight};
  }
  if (beside) {
    teacher_ =
        std::make_unique<Teacher>(config_, *model_.teacher, parameters_->options(), layout_, *communicators_.world);
  }
  math_ = std::make_unique<StageMath>(model_.config, parameters_->weights(), config_.seq_length, math);
  graph_ = std::make_unique<StageGraph>(build_graph(model_.config, model_.connectivity, graph));
  graph.num_microbatches = 1;
  graph.scope = Scope::forward;
  graph.match_streams = graph.match_routes = false;
  evaluation_graph_ = std::make_unique<StageGraph>(build_graph(model_.config, model_.connectivity, graph));
  training_step_ =
      std::make_unique<TrainingStep>(model_.config, *parameters_, *shards_, config_, layout_, world.rank());
}

std::vector<Batch> TrainingSession::make_batches(const StepSamples& samples, int64_t iteration) const {
  const auto num_sequences = static_cast<double>(position(iteration).batch_size);
  std::vector<Batch> result;
  for (const auto& rows : samples)
    result.push_back(sample_batch(rows, config_.seq_length, num_sequences, parameters_->options().device));
  return result;
}

ExecutorOptions TrainingSession::executor_options() const {
  ExecutorOptions options;
  if (teacher_) options.teacher = &teacher_->math();
  return options;
}

Executor& TrainingSession::executor_for(const Schedule& schedule) {
  for (auto& [ops, executor] : executors_) {
    if (ops == schedule.ops) return *executor;
  }
  executors_.emplace_back(schedule.ops,
                          std::make_unique<Executor>(*graph_, schedule, *math_, *parameters_, communicators_,
                                                     training_step_.get(), executor_options()));
  return *executors_.back().second;
}

StepResult TrainingSession::step(int64_t iteration, const Schedule& schedule) {
  training_step_->begin(position(iteration));
  std::vector<Batch> microbatches = make_batches(reader_.next(iteration), iteration);
  if (masked_) set_denominators(microbatches);
  if (config_.distill.wanted()) set_teacher_terms(microbatches, iteration);
  gathered_ = false;
  return executor_for(schedule).run(std::move(microbatches));
}

void TrainingSession::set_denominators(std::vector<Batch>& batches) {
  double counted = 0;
  for (const Batch& batch : batches) counted += batch.targets.ne(nn::ignored_target).sum().item<double>();
  at::Tensor sum = at::full({1}, counted, at::kDouble);
  if (communicators_.world->size() > 1) sum = communicators_.world->all_reduce(sum, "targets").await();
  for (Batch& batch : batches) batch.denominator = std::max(1.0, sum.item<double>());
}

void TrainingSession::set_teacher_terms(std::vector<Batch>& batches, int64_t iteration) const {
  for (Batch& batch : batches) {
    batch.hidden_weight = config_.distill.hidden_weight_at(iteration, config_.train_iters);
    batch.router_weight = config_.distill.router_weight;
  }
}

void TrainingSession::gather_weights() {
  if (gathered_) return;
  for (const BucketId bucket : shards_->buckets()) {
    Transport& transport = bucket.experts ? *communicators_.expert_data : *communicators_.world;
    shards_->take_values(bucket, transport.all_gather(shards_->pack_values(bucket), "weights").await());
  }
  gathered_ = true;
}

Evaluation TrainingSession::evaluate(const SampleSource& samples, int64_t num_samples) {
  gather_weights();
  ExecutorOptions options = executor_options();
  options.record_spans = false;
  Executor executor(*evaluation_graph_, reference_schedule(*evaluation_graph_), *math_, *parameters_, communicators_,
                    nullptr, options);
  const int ranks = communicators_.world->size();
  const int64_t batch = config_.micro_batch_size;
  const bool distills = config_.distill.wanted();
  const int64_t num_sums = distills ? num_distill_sums(model_.config) : 1;
  at::Tensor sums = at::zeros({num_sums}, at::kDouble);
  double counted = static_cast<double>(num_samples * config_.seq_length);  // each rank counts all of them
  if (num_samples > 0 && !samples(0).loss_mask.empty()) {
    counted = 0;
    for (int64_t i = 0; i < num_samples; ++i) {
      const auto mask = samples(i).loss_mask;
      counted += static_cast<double>(std::count(mask.begin(), mask.end(), 1));
    }
  }
  // Every rank runs the same number of batches: ranks without a sample of their own run one whose targets are ignored.
  for (int64_t first = 0; first < num_samples; first += batch * ranks) {
    std::vector<TrainSample> rows;
    const int64_t begin = first + communicators_.world->rank() * batch;
    for (int64_t i = begin; i < std::min(begin + batch, num_samples); ++i) rows.push_back(samples(i));
    const bool idle = rows.empty();
    if (idle) rows.push_back(samples(0));
    Batch made =
        sample_batch(rows, config_.seq_length, static_cast<double>(num_samples), parameters_->options().device);
    made.denominator = std::max(1.0, counted);
    const auto result = executor.run({std::move(made)});
    if (idle) continue;
    if (distills) {
      sums += distill_sums(model_.config, result.microbatches);
    } else {
      sums += result.losses[0].item<double>();
    }
  }
  if (ranks > 1) sums = communicators_.world->all_reduce(sums, "validation").await();
  const double* values = sums.const_data_ptr<double>();
  if (!distills) return {values[0]};
  const DistillStats stats = distill_stats(model_.config, values, teacher_ != nullptr);
  return {stats.cross_entropy, stats};
}

void TrainingSession::set_vocabulary(const std::string& data_prefix) {
  vocabulary_ = data_prefix.empty() ? "" : vocabulary_folder(data_prefix);
  end_of_document_ = data_prefix.empty() ? -1 : read_vocabulary_record(data_prefix).end_of_document;
}

void TrainingSession::export_model(const std::string& folder) {
  gather_weights();
  SaveOptions options;
  if (!vocabulary_.empty())
    options.extra = [&](const std::string& unfinished) { copy_tokenizer(vocabulary_, unfinished); };
  // Masters of all ranks are nowhere together; where they are shared out, the weights that stages compute with go out.
  if (shards_->sharded()) options.dtype = math_->dtype();
  // Rank 0 of the first replica writes; its peers bring their experts one block at a time.
  options.gather = [&](const at::Tensor& block, int64_t owner) { return communicators_.gather_block(block, owner); };
  if (communicators_.world->rank() < layout_.ep) save_checkpoint(folder, model_json(), *parameters_, options);
  communicators_.world->barrier("save");
}

nlohmann::json TrainingSession::model_json() const {
  nlohmann::json config = export_config(model_.config, model_.connectivity);
  if (end_of_document_ >= 0) config["eos_token_id"] = end_of_document_;
  return config;
}

void TrainingSession::start_checkpoint(CheckpointWriter& writer, TrainingState state) {
  gather_weights();
  state.optimizer_steps = training_step_->optimizer().num_steps();
  state.seed = config_.seed;
  state.seq_length = config_.seq_length;
  state.global_batch_size = config_.global_batch_size;
  state.layout = layout_.to_string();
  writer.start(*parameters_, training_step_->optimizer(), model_json(), state, vocabulary_);
}

TrainingState TrainingSession::restore(const std::string& root) {
  TrainingState state = restore_checkpoint(root, *parameters_, training_step_->optimizer(), *communicators_.world);
  auto same = [&](const char* name, int64_t saved, int64_t now) {
    if (saved == now) return;
    fail(
        "load={}: saved with {}={}, the recipe says {}; keep it, or give finetune=true to begin a new run with the "
        "weights",
        root, name, saved, now);
  };
  same("global_batch_size", state.global_batch_size, config_.global_batch_size);
  same("seq_length", state.seq_length, config_.seq_length);
  same("seed", state.seed, config_.seed);
  same("consumed_samples", state.consumed_samples, position(state.iteration).consumed_samples);  // rampup_batch_size
  try {
    if (!state.schedule.empty()) validate(*graph_, schedule_from_text(*graph_, state.schedule, root));
  } catch (const Error&) {
    state.schedule.clear();  // of another graph
  }
  return state;
}

}  // namespace farskip
