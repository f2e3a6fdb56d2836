#include "exec/verify.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "exec/executor.h"
#include "model/checkpoint.h"
#include "nn/loss.h"
#include "sim/search.h"

namespace farskip {
namespace {

/// A step that reduces gradients and leaves the weights alone.
struct NoUpdate : StepHooks {
  double loss = 0;
  at::Tensor local_stats(const std::vector<Microbatch>&, const std::vector<at::Tensor>& losses) override {
    return losses[0].to(at::kDouble).reshape({1});
  }
  void optimize(const at::Tensor& stats) override { loss = stats.item<double>(); }
};

class Verifier {
 public:
  Verifier(const std::string& folder, const ModelConfig& config, std::shared_ptr<const ParameterTable> table,
           const Reference& reference, const VerifyOptions& options, World& world)
      : config_(config),
        connectivity_(Connectivity::from_config(config.raw, config.num_layers())),
        reference_(reference),
        options_(options),
        world_(world),
        communicators_(Communicators::make(world, options.layout)),
        parameters_(std::move(table), {.dtype = options.dtype,
                                       .expert_rank = world.rank() % options.layout.ep,
                                       .expert_ranks = options.layout.ep}),
        step_graph_(graph(Scope::step)),
        forward_graph_(graph(Scope::forward)) {
    unused_ = load_checkpoint(folder, parameters_).unused();
    int64_t positions = 0;
    for (const auto& batch : reference.batches()) {
      positions = std::max(positions, reference.tokens(batch).size(1) + reference.num_greedy(batch));
    }
    math_ =
        std::make_unique<StageMath>(config_, parameters_.weights(), positions,
                                    StageMathOptions{.expert_ranks = options.layout.ep, .keep_routing_weights = true});
  }

  Verification run() {
    Verification result;
    result.connectivity = connectivity_.to_string();
    result.unused = unused_;
    for (const auto& batch : reference_.batches()) {
      const at::Tensor tokens = reference_.tokens(batch);
      out_["input_ids." + batch] = tokens;
      if (batch == "a") result.schedule = train(tokens);
      if (options_.reference_routing) continue;
      if (batch != "a") {
        const auto [logits, loss] = forward(tokens);
        put_result(batch, logits, loss);
      }
      decode(batch, tokens);
    }
    for (const auto& name : reference_.names()) {
      if (!options_.reference_routing || out_.count(name)) result.computed[name] = out_.at(name);
    }
    const Judge judge = options_.dtype == at::kFloat ? Judge::all : Judge::logits;
    result.quantities = reference_.compare(result.computed, options_.tolerances, judge);
    return result;
  }

 private:
  StageGraph graph(Scope scope) const {
    return build_graph(config_, connectivity_, {Phase::train, options_.layout, 1, scope});
  }

  Schedule schedule(const StageGraph& graph, const at::Tensor& tokens) const {
    Workload load;
    load.sequences = std::max<double>(1, static_cast<double>(tokens.size(0)) / world_.size());
    load.seq_length = static_cast<double>(tokens.size(1));
    load.bytes_per_value = 4;
    const auto names = {"reference", "async", "paper", "search", "two-batch", "1f1b"};
    const bool is_file = std::find(names.begin(), names.end(), options_.schedule) == names.end();
    const bool whole_step = graph.options().scope == Scope::step;
    return named_schedule(is_file && !whole_step ? "reference" : options_.schedule, graph,
                          model_costs(graph, config_, machine("cpu"), load));
  }

  /// Sequences of each rank; the first ranks get one more where they cannot be divided evenly.
  std::vector<int64_t> shares(int64_t num_sequences) const {
    std::vector<int64_t> rows;
    for (int64_t r = 0; r < world_.size(); ++r) {
      rows.push_back(num_sequences / world_.size() + (r < num_sequences % world_.size() ? 1 : 0));
    }
    return rows;
  }

  /// This rank's sequences and their successors. The loss is a mean over the predicted tokens of all ranks.
  Batch share(const at::Tensor& tokens) const {
    const auto rows = shares(tokens.size(0));
    int64_t first = 0;
    for (int r = 0; r < world_.rank(); ++r) first += rows[r];
    Batch batch;
    batch.tokens = tokens.narrow(0, first, rows[world_.rank()]).clone();
    batch.targets = at::full_like(batch.tokens, nn::ignored_target);
    const int64_t predicted = tokens.size(1) - 1;
    batch.targets.narrow(1, 0, predicted).copy_(batch.tokens.narrow(1, 1, predicted));
    batch.denominator = static_cast<double>(tokens.size(0) * predicted);
    return batch;
  }

  /// What the reference chose for this rank's tokens of batch a, per layer.
  std::vector<at::Tensor> given_experts(const at::Tensor& tokens) const {
    const auto rows = shares(tokens.size(0));
    int64_t first = 0;
    for (int r = 0; r < world_.rank(); ++r) first += rows[r];
    std::vector<at::Tensor> experts(config_.num_layers());
    for (int64_t k = 0; k < config_.num_layers(); ++k) {
      if (!config_.is_moe(k)) continue;
      experts[k] =
          reference_.experts(k, config_.top_k).narrow(0, first * tokens.size(1), rows[world_.rank()] * tokens.size(1));
    }
    return experts;
  }

  /// All ranks' sequences of a value [B, ...] that each rank holds for its own.
  at::Tensor gather(const at::Tensor& own, int64_t num_sequences, const std::string& name) {
    return communicators_.world->all_gather(own.detach(), "verify " + name, shares(num_sequences)).await();
  }

  void put_result(const std::string& batch, const at::Tensor& logits, double loss) {
    out_["logits." + batch] = logits;
    out_["loss." + batch] = at::full({1}, loss, at::kFloat);
  }

  /// A training step. Returns the name of its schedule.
  std::string train(const at::Tensor& tokens) {
    std::map<std::string, at::Tensor> values;
    NoUpdate hooks;
    const auto observe = [&](const Value& value, const at::Tensor& tensor) { values[value.name] = tensor; };
    Executor executor(step_graph_, schedule(step_graph_, tokens), *math_, parameters_, communicators_, &hooks,
                      {.record_spans = false, .observe = observe});
    Batch batch = share(tokens);
    if (options_.reference_routing) batch.experts = given_experts(tokens);
    const StepResult step = executor.run({std::move(batch)});
    put_result("a", gather(values.at("mb0.logits"), tokens.size(0), "logits"), hooks.loss);
    put_streams(values, tokens.size(0));
    for (int64_t k = 0; k < config_.num_layers(); ++k) {
      if (!config_.is_moe(k)) continue;
      const at::Tensor weights = step.microbatches[0].routing[k].weights;
      const auto name = fmt::format("routing.a.{}", k);
      const int64_t own = shares(tokens.size(0))[world_.rank()];
      out_[name] = gather(weights.view({own, tokens.size(1), config_.num_experts}), tokens.size(0), name);
    }
    put_gradients();
    return executor.schedule().name;
  }

  /// Both streams in front of every layer. What the graph itself computed is taken: x_k wherever some reader sees all
  /// of it, y_k where attention of layer k reads it. The others, which no reader of this model sees, are added from the
  /// layer's outputs in the order of layer/streams.h.
  void put_streams(const std::map<std::string, at::Tensor>& values, int64_t num_sequences) {
    at::Tensor x = values.at("mb0.x0");
    out_["hidden.a.0"] = gather(x, num_sequences, "hidden.a.0");
    for (int k = 0; k < config_.num_layers(); ++k) {
      const auto output = [&](const char* name) {
        const auto found = values.find(fmt::format("mb0.l{}.{}", k, name));
        return found == values.end() ? at::Tensor() : found->second.detach();
      };
      const at::Tensor h = x + output("attn"), routed = output("routed");
      const at::Tensor kept = config_.is_moe(k) ? output("shared") : output("dense");
      at::Tensor y = kept.defined() ? h + kept : h;
      x = !routed.defined() ? y : h + (kept.defined() ? routed + kept : routed);
      if (const auto whole = values.find(fmt::format("mb0.x{}", k + 1)); whole != values.end())
        x = whole->second.detach();
      if (k + 1 < config_.num_layers() && connectivity_.layer(k + 1).attention_routed == 1) {
        const NodeId reader = step_graph_.find(0, k + 1, Pass::forward, Stage::qkv);
        y = values.at(step_graph_.value(step_graph_.node(reader).reads[0]).name).detach();
      }
      const auto hidden = fmt::format("hidden.a.{}", k + 1), stream_y = fmt::format("stream_y.a.{}", k + 1);
      out_[hidden] = gather(x, num_sequences, hidden);
      out_[stream_y] = gather(y, num_sequences, stream_y);
    }
  }

  void put_gradients() {
    for (const auto& info : parameters_.table().parameters()) {
      at::Tensor grad = parameters_.main_grad(info.id);
      if (info.expert) grad = communicators_.expert->all_gather(grad, "verify gradients").await();
      for (const auto& [name, tensor] : info.tensors_of(grad)) {
        out_["grad." + name] = tensor.clone(at::MemoryFormat::Contiguous);
      }
    }
  }

  /// Logits of all sequences and the mean loss.
  std::pair<at::Tensor, double> forward(const at::Tensor& tokens) {
    at::Tensor logits;
    const auto observe = [&](const Value& value, const at::Tensor& tensor) {
      if (value.name == "mb0.logits") logits = tensor;
    };
    Executor executor(forward_graph_, schedule(forward_graph_, tokens), *math_, parameters_, communicators_, nullptr,
                      {.record_spans = false, .observe = observe});
    const StepResult step = executor.run({share(tokens)});
    const at::Tensor loss = step.losses[0].to(at::kDouble).reshape({1});
    return {gather(logits, tokens.size(0), "logits"),
            communicators_.world->all_reduce(loss, "verify loss").await().item<double>()};
  }

  void decode(const std::string& batch, const at::Tensor& prompt) {
    at::Tensor tokens = prompt;
    for (int64_t i = 0; i < reference_.num_greedy(batch); ++i) {
      const at::Tensor last = forward(tokens).first.select(1, -1);
      tokens = at::cat({tokens, last.argmax(-1, true)}, 1);
    }
    out_["greedy." + batch] = tokens.narrow(1, prompt.size(1), tokens.size(1) - prompt.size(1)).contiguous();
  }

  const ModelConfig& config_;
  const Connectivity connectivity_;
  const Reference& reference_;
  const VerifyOptions& options_;
  World& world_;
  const Communicators communicators_;
  ParameterSet parameters_;
  const StageGraph step_graph_, forward_graph_;
  std::unique_ptr<StageMath> math_;
  NamedTensors out_;
  std::string unused_;
};

}  // namespace

bool Verification::ok() const {
  return std::all_of(quantities.begin(), quantities.end(), [](const Quantity& q) { return q.ok(); });
}

Verification verify(const std::string& model, const std::string& reference, const VerifyOptions& options,
                    World& world) {
  const ModelConfig config = load_model_config(model);
  if (options.dtype != at::kFloat && !options.reference_routing) {
    fail("in {} near ties choose other experts, and nothing behind them can be compared; add --routing reference",
         c10::toString(options.dtype));
  }
  options.layout.check(config, Phase::train);
  const auto table = std::make_shared<const ParameterTable>(config);
  const Reference values(reference, config, *table);
  return Verifier(model, config, table, values, options, world).run();
}

}  // namespace farskip
