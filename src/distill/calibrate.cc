#include "distill/calibrate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "distill/tensor_spool.h"
#include "exec/partial_run.h"
#include "nn/loss.h"
#include "nn/norm.h"

namespace farskip {
namespace {

/// One model's graph and what runs it.
class Walker {
 public:
  Walker(const ModelConfig& model, const Connectivity& connectivity, const StageMath& math,
         const Communicators& communicators, const Layout& layout)
      : graph_(build_graph(model, connectivity, {Phase::train, layout, 1, Scope::forward})),
        executor_(graph_, reference_schedule(graph_), math, communicators, {.record_spans = false}) {}

  PartialRun start(const at::Tensor& tokens) {
    return {executor_, Batch{tokens, at::full_like(tokens, nn::ignored_target), 1}};
  }
  NodeId qkv(int layer) const { return graph_.find(0, layer, Pass::forward, Stage::qkv); }
  /// The first reader of the feed-forward's input.
  NodeId feed_forward(int layer) const {
    const NodeId route = graph_.find(0, layer, Pass::forward, Stage::route);
    return route != no_node ? route : graph_.find(0, layer, Pass::forward, Stage::dense);
  }
  NodeId loss() const { return graph_.find(0, graph_.num_layers(), Pass::forward, Stage::loss); }
  /// What `node` reads first.
  const at::Tensor& input(const PartialRun& run, NodeId node) const { return run.value(graph_.node(node).reads[0]); }

 private:
  StageGraph graph_;
  Executor executor_;
};

/// Sums of Agreement over the tokens of a chunk.
void add(Agreement& sum, const at::Tensor& teacher_logits, const at::Tensor& student_logits) {
  constexpr int64_t rows_at_once = 256;  // of fp32 copies
  const at::Tensor teacher = teacher_logits.flatten(0, 1), student = student_logits.flatten(0, 1);
  for (int64_t begin = 0; begin < teacher.size(0); begin += rows_at_once) {
    const int64_t num = std::min(rows_at_once, teacher.size(0) - begin);
    const at::Tensor p = at::log_softmax(teacher.narrow(0, begin, num).to(at::kFloat), -1);
    const at::Tensor q = at::log_softmax(student.narrow(0, begin, num).to(at::kFloat), -1);
    sum.kl += (p.exp() * (p - q)).sum(at::kDouble).item<double>();
    sum.top1 += p.argmax(-1).eq(q.argmax(-1)).sum().item<double>();
    sum.num_tokens += static_cast<double>(num);
  }
}

class Calibration {
 public:
  Calibration(const ModelConfig& model, const Connectivity& teacher, const Connectivity& student,
              ParameterSet& parameters, const Communicators& communicators, const Layout& layout,
              const at::Tensor& tokens, const CalibrationOptions& options)
      : model_(model),
        options_(options),
        world_(*communicators.world),
        weights_(parameters.weights()),
        math_(model, weights_, tokens.size(1), {.expert_ranks = layout.ep}),
        teacher_(model, teacher, math_, communicators, layout),
        student_(model, student, math_, communicators, layout),
        spool_(options.spool_folder) {
    FARSKIP_CHECK(!parameters.options().keep_main, "weights are mapped in place");
    const int64_t num_sequences = tokens.size(0);
    const auto held_out = static_cast<int64_t>(std::ceil(options.held_out * static_cast<double>(num_sequences)));
    if (held_out < 1 || held_out >= num_sequences) {
      fail("calibration: {} sequences of {} tokens a rank, of which {} would be held out; give more text",
           num_sequences, tokens.size(1), held_out);
    }
    const int64_t at_once = std::max<int64_t>(1, options.tokens_per_chunk / tokens.size(1));
    cut(tokens.narrow(0, 0, num_sequences - held_out), at_once, false);
    cut(tokens.narrow(0, num_sequences - held_out, held_out), at_once, true);
  }

  CalibrationReport run() {
    for (const Chunk& chunk : chunks_) {
      if (chunk.held_out) compare(teacher_.start(chunk.tokens), student_.start(chunk.tokens), report_.before);
    }
    for (Chunk& chunk : chunks_) {
      chunk.teacher.push_back(teacher_.start(chunk.tokens));
      chunk.student.push_back(student_.start(chunk.tokens));
    }
    for (int k = 0; k < model_.num_layers(); ++k) {
      map_attention(k);
      map_feed_forward(k);
      if (options_.on_progress) options_.on_progress(k + 1);
    }
    for (Chunk& chunk : chunks_) {
      if (chunk.held_out) compare(std::move(chunk.teacher[0]), std::move(chunk.student[0]), report_.after);
      chunk.teacher.clear();
      chunk.student.clear();
    }
    for (Agreement* sum : {&report_.before, &report_.after}) finish(*sum);
    return std::move(report_);
  }

 private:
  struct Chunk {
    at::Tensor tokens;
    bool held_out;
    std::vector<PartialRun> teacher = {}, student = {};  ///< one each, while they are under way
  };

  void cut(const at::Tensor& tokens, int64_t at_once, bool held_out) {
    for (const at::Tensor& part : tokens.split(at_once)) chunks_.push_back({part, held_out});
  }

  at::Tensor normed(const at::Tensor& view, const nn::Param& norm) const {
    const at::NoGradGuard no_grad;
    return nn::rms_norm(view, norm, model_.rms_norm_eps, nullptr);
  }

  /// Statistics of one reader, of the tokens to fit and of those held out.
  struct Both {
    InputStatistics fitted, held_out;
    InputStatistics& of(const Chunk& chunk) { return chunk.held_out ? held_out : fitted; }
  };
  Both statistics() const { return {InputStatistics(model_.hidden_size), InputStatistics(model_.hidden_size)}; }

  void map_attention(int k) {
    Both sums = statistics();
    const nn::Param& norm = weights_.layers[k].input_layernorm;
    for (Chunk& chunk : chunks_) {
      PartialRun &teacher = chunk.teacher[0], &student = chunk.student[0];
      teacher.run_before(teacher_.qkv(k));
      student.run_before(student_.qkv(k));
      sums.of(chunk).add(normed(student_.input(student, student_.qkv(k)), norm),
                         normed(teacher_.input(teacher, teacher_.qkv(k)), norm));
      // The teacher passes before weights that both have are mapped.
      teacher.run_before(teacher_.feed_forward(k));
      park(chunk);
    }
    map(k, true, sums, attention_readers(weights_.layers[k]));
  }

  void map_feed_forward(int k) {
    Both sums = statistics();
    for (Chunk& chunk : chunks_) {
      PartialRun &teacher = chunk.teacher[0], &student = chunk.student[0];
      student.run_before(student_.feed_forward(k));
      sums.of(chunk).add(student_.input(student, student_.feed_forward(k)),
                         teacher_.input(teacher, teacher_.feed_forward(k)));
      teacher.run_before(k + 1 < model_.num_layers() ? teacher_.qkv(k + 1) : teacher_.loss());
      park(chunk);
    }
    map(k, false, sums, feed_forward_readers(weights_.layers[k]));
  }

  void map(int k, bool attention, Both& sums, const std::vector<nn::Param*>& readers) {
    for (InputStatistics* part : {&sums.fitted, &sums.held_out}) {
      if (world_.size() > 1) part->unpack(world_.all_reduce(part->packed(), "input statistics").await());
    }
    report_.fitted_tokens = sums.fitted.num_tokens;
    const ChosenMap chosen = choose_input_map(sums.fitted, sums.held_out, options_.dampings);
    if (chosen.identity_error < 1e-9) return;
    report_.readers.push_back({k, attention, chosen.damping, chosen.identity_error, chosen.error});
    if (!chosen.map.defined()) return;
    for (const nn::Param* weight : readers) apply_input_map(*weight, chosen.map);
  }

  void park(Chunk& chunk) {
    for (PartialRun* run : {&chunk.teacher[0], &chunk.student[0]}) {
      run->exchange([&](const at::Tensor& value) { return spool_.keep(value); });
    }
  }

  void compare(PartialRun teacher, PartialRun student, Agreement& sum) {
    teacher.run_before(teacher_.loss());
    student.run_before(student_.loss());
    add(sum, teacher_.input(teacher, teacher_.loss()), student_.input(student, student_.loss()));
  }

  void finish(Agreement& sum) {
    at::Tensor sums = at::tensor(std::vector<double>{sum.kl, sum.top1, sum.num_tokens}, at::kDouble);
    if (world_.size() > 1) sums = world_.all_reduce(sums, "agreement").await();
    const double num = sums[2].item<double>();
    sum = {sums[0].item<double>() / num, sums[1].item<double>() / num, num};
  }

  const ModelConfig& model_;
  const CalibrationOptions& options_;
  Transport& world_;
  nn::ModelWeights weights_;
  StageMath math_;
  Walker teacher_, student_;
  TensorSpool spool_;
  std::vector<Chunk> chunks_;
  CalibrationReport report_;
};

}  // namespace

CalibrationPlan plan_calibration(const ModelConfig& model, int64_t num_tokens) {
  const auto size = static_cast<double>(model.hidden_size);
  // Two sums of products, of fitted and of held-out tokens, and as much again while a map is made of them; of each
  // token a few streams of teacher and student.
  return {8 * size * size * 8, 6 * size * 4 * static_cast<double>(num_tokens)};
}

CalibrationReport calibrate(const ModelConfig& model, const Connectivity& teacher, const Connectivity& student,
                            ParameterSet& parameters, const Communicators& communicators, const Layout& layout,
                            const at::Tensor& tokens, const CalibrationOptions& options) {
  const at::NoGradGuard no_grad;
  return Calibration(model, teacher, student, parameters, communicators, layout, tokens, options).run();
}

}  // namespace farskip
