#include "distill/calibrate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "distill/calibration_plan.h"
#include "distill/linear_map.h"
#include "distill/tensor_spool.h"
#include "distill/walker.h"
#include "nn/norm.h"
#include "nn/permute.h"

namespace farskip {
namespace {

at::Tensor rows(const at::Tensor& value) { return value.flatten(0, -2); }

class Calibration {
 public:
  Calibration(const ModelConfig& model, const Connectivity& teacher, const Connectivity& student,
              ParameterSet& parameters, const Communicators& communicators, const Layout& layout,
              const at::Tensor& tokens, const CalibrationOptions& options)
      : model_(model),
        options_(options),
        world_(*communicators.world),
        weights_(parameters.weights()),
        expert_rank_(parameters.options().expert_rank),
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
      chunk.runs.push_back(teacher_.start(chunk.tokens));
      chunk.runs.push_back(student_.start(chunk.tokens));
    }
    for (int k = 0; k < model_.num_layers(); ++k) {
      map_attention_input(k);
      if (!student_.joins_late(k)) map_outputs(k, MapSite::attention_output);
      map_feed_forward_input(k);
      const MapSite outputs = student_.late_outputs(k);
      if (experts_have_maps(k)) {
        if (student_.joins_late(k)) map_outputs(k, outputs, student_.unpermute(k));
        for (int round = 0; round < options_.expert_rounds; ++round) map_expert_outputs(k);
      }
      map_outputs(k, outputs);
      if (options_.on_progress) options_.on_progress(k + 1);
    }
    map_head_input();
    for (Chunk& chunk : chunks_) {
      if (chunk.held_out) compare(std::move(chunk.teacher()), std::move(chunk.student()), report_.after);
      chunk.runs.clear();
    }
    for (Agreement* sum : {&report_.before, &report_.after}) *sum = mean_over_tokens(*sum, world_);
    return std::move(report_);
  }

 private:
  struct Chunk {
    at::Tensor tokens;
    bool held_out;
    std::vector<PartialRun> runs = {};  ///< the teacher's and the student's, while they are under way
    at::Tensor missing = {};            ///< [T, D]: the teacher's residual stream less the student's, as far as mapped
    at::Tensor teacher_input = {};      ///< [T, D]: of the feed-forward whose experts are mapped next
    PartialRun& teacher() { return runs[0]; }
    PartialRun& student() { return runs[1]; }
  };

  void cut(const at::Tensor& tokens, int64_t at_once, bool held_out) {
    for (const at::Tensor& part : tokens.split(at_once)) chunks_.push_back({part, held_out});
  }

  at::Tensor normed(const at::Tensor& view, const nn::Param& norm) const {
    return nn::rms_norm(view, norm, model_.rms_norm_eps, nullptr);
  }

  bool experts_have_maps(int k) const {
    return model_.is_moe(k) && student_.permute(k) != no_node && expert_maps_fit(model_, options_.max_expert_bytes);
  }
  int64_t width() const { return model_.hidden_size; }

  /// Statistics of one map, of the tokens to fit and of those held out.
  struct Both {
    MapStatistics fitted, held_out;
    explicit Both(int64_t width, int64_t num_parts = 1) : fitted(width, num_parts), held_out(width, num_parts) {}
    MapStatistics& of(const Chunk& chunk) { return chunk.held_out ? held_out : fitted; }
  };

  ChosenMap choose(Both& sums) {
    for (MapStatistics* part : {&sums.fitted, &sums.held_out}) {
      if (world_.size() > 1) part->unpack(world_.all_reduce(part->packed(), "calibration statistics").await());
    }
    return choose_map(sums.fitted, sums.held_out, options_.dampings);
  }

  /// Maps the weights of a site where that helps. Returns the map, cut into those of the parts.
  std::vector<at::Tensor> map(int k, MapSite site, Both& sums) {
    const ChosenMap chosen = choose(sums);
    report_.fitted_tokens = sums.fitted.num_tokens;
    if (chosen.agrees()) return {};
    report_.maps.push_back({k, site, 1, chosen.map.defined(), chosen.damping, chosen.identity_error, chosen.error});
    if (!chosen.map.defined()) return {};
    std::vector<at::Tensor> maps = chosen.map.split(width(), 1);
    apply_maps(weights_, k, site, maps);
    return maps;
  }

  void map_attention_input(int k) {
    Both sums(width());
    const nn::Param& norm = weights_.layers[k].input_layernorm;
    for (Chunk& chunk : chunks_) {
      chunk.teacher().run_before(teacher_.qkv(k));
      chunk.student().run_before(student_.qkv(k));
      sums.of(chunk).add(normed(student_.input(chunk.student(), student_.qkv(k)), norm),
                         normed(teacher_.input(chunk.teacher(), teacher_.qkv(k)), norm));
      // The teacher passes before weights that both have are mapped.
      chunk.teacher().run_before(teacher_.behind(k, MapSite::attention_output));
      // All that the layer adds is to make up for attention then.
      if (student_.joins_late(k)) chunk.missing = wanted(chunk, k, MapSite::attention_output);
      park(chunk);
    }
    map(k, MapSite::attention_input, sums);
  }

  void map_feed_forward_input(int k) {
    Both sums(width());
    for (Chunk& chunk : chunks_) {
      chunk.teacher().run_before(teacher_.feed_forward(k));
      chunk.student().run_before(student_.feed_forward(k));
      const at::Tensor teacher_input = rows(teacher_.input(chunk.teacher(), teacher_.feed_forward(k)));
      sums.of(chunk).add(student_.input(chunk.student(), student_.feed_forward(k)), teacher_input);
      chunk.teacher_input = experts_have_maps(k) ? teacher_input : at::Tensor();
      chunk.teacher().run_before(teacher_.behind(k, MapSite::feed_forward_output));
      park(chunk);
    }
    const std::vector<at::Tensor> maps = map(k, MapSite::feed_forward_input, sums);
    if (experts_have_maps(k)) {
      map_expert_inputs(k, maps.empty() ? at::Tensor() : maps[0]);
    } else if (!maps.empty()) {
      apply_maps(weights_, k, MapSite::expert_input, maps);
    }
  }

  /// With the rows sorted by expert: the student's and the teacher's, [N, D].
  using ExpertPair = std::pair<at::Tensor, at::Tensor>;
  using ExpertRows = std::function<ExpertPair(Chunk&, const nn::RoutePlan&)>;

  /// Maps each expert on the rows it has when students stand before `stop`, from the map of them all on. Returns the
  /// maps, undefined where there is none; nothing where all agree.
  std::vector<at::Tensor> map_experts(int k, MapSite site, NodeId stop, const at::Tensor& of_all,
                                      const ExpertRows& expert_rows) {
    std::vector<Both> sums;
    for (int64_t e = 0; e < model_.num_experts; ++e) {
      sums.emplace_back(width());
      if (of_all.defined()) sums.back().fitted.prior = sums.back().held_out.prior = of_all;
    }
    for (Chunk& chunk : chunks_) {
      chunk.student().run_before(stop);
      const nn::RoutePlan plan = plan_of(chunk, k);
      const auto [student, teacher] = expert_rows(chunk, plan);
      for_experts(plan, [&](int64_t e, int64_t begin, int64_t num) {
        sums[e].of(chunk).add(student.narrow(0, begin, num), teacher.narrow(0, begin, num));
      });
      park(chunk);
    }
    std::vector<at::Tensor> maps;
    CalibrationReport::Map sum{k, site, model_.num_experts, 0, 0, 0, 0};
    double squares = 0;
    bool agree = true;
    for (Both& both : sums) {
      const ChosenMap chosen = choose(both);
      maps.push_back(chosen.map.defined() ? chosen.map : of_all);
      sum.num_mapped += chosen.map.defined();
      sum.identity_error += chosen.identity_error * both.held_out.teacher_squares;
      sum.error += chosen.error * both.held_out.teacher_squares;
      squares += both.held_out.teacher_squares;
      agree = agree && chosen.agrees();
    }
    if (agree) return {};
    sum.identity_error /= squares, sum.error /= squares;
    report_.maps.push_back(sum);
    const int64_t num_local = weights_.layers[k].moe.down.value.size(0), first = expert_rank_ * num_local;
    apply_expert_maps(weights_, k, site, {maps.begin() + first, maps.begin() + first + num_local});
    return maps;
  }

  /// Calls `body(expert, first row, number of rows)`.
  template <typename Body>
  static void for_experts(const nn::RoutePlan& plan, Body&& body) {
    const at::Tensor counts = plan.send_counts.flatten();
    int64_t begin = 0;
    for (int64_t e = 0; e < counts.numel(); ++e) {
      const int64_t num = counts.data_ptr<int64_t>()[e];
      if (num > 0) body(e, begin, num);
      begin += num;
    }
  }

  /// What the student's router has decided; before its rows are summed.
  nn::RoutePlan plan_of(Chunk& chunk, int k) const {
    const at::Tensor& ids = chunk.student().value(student_.reads(student_.unpermute(k)).back());
    return nn::make_route_plan(ids, model_.num_experts, 1);
  }

  void map_expert_inputs(int k, const at::Tensor& of_all) {
    const NodeId stop = student_.permute(k);
    map_experts(k, MapSite::expert_input, stop, of_all, [&](Chunk& chunk, const nn::RoutePlan& plan) -> ExpertPair {
      const at::Tensor input = rows(student_.input(chunk.student(), stop));
      return {input.index_select(0, plan.token), chunk.teacher_input.index_select(0, plan.token)};
    });
  }

  /// Each of the experts of a token makes up for its share of what the stream would lack behind this layer.
  void map_expert_outputs(int k) {
    const NodeId stop = student_.unpermute(k);
    const std::vector<ValueId>& reads = student_.reads(stop);
    const auto has_and_wants = [&](Chunk& chunk, const nn::RoutePlan& plan) -> ExpertPair {
      at::Tensor lacking = wanted(chunk, k, student_.late_outputs(k));
      for (const ValueId id : outputs(k, student_.late_outputs(k), stop)) lacking = lacking - added(chunk, k, id);
      const at::Tensor returned = chunk.student().value(reads[0]), p = row_weights(chunk, k);
      const at::Tensor weighed =
          p.defined() ? returned * p.flatten().index_select(0, plan.order).unsqueeze(-1) : returned;
      return {weighed, weighed + lacking.index_select(0, plan.token) / static_cast<double>(plan.top_k)};
    };
    const auto maps = map_experts(k, MapSite::expert_output, stop, {}, has_and_wants);
    if (maps.empty()) return;
    for (Chunk& chunk : chunks_) {
      const nn::RoutePlan plan = plan_of(chunk, k);
      const at::Tensor returned = chunk.student().value(reads[0]).clone();
      for_experts(plan, [&](int64_t e, int64_t begin, int64_t num) {
        if (!maps[e].defined()) return;
        const at::Tensor part = returned.narrow(0, begin, num);
        part.copy_(at::matmul(part, maps[e].t().to(part.scalar_type())));
      });
      chunk.student().replace(reads[0], returned);
      park(chunk);
    }
  }

  /// What the weights of `site` have written where the student stands before `stop`: of routed experts, rows that are
  /// not summed yet before unpermute.
  std::vector<ValueId> outputs(int k, MapSite site, NodeId stop) const {
    std::vector<ValueId> ids = student_.outputs(k, site);
    if (stop != student_.unpermute(k)) return ids;
    std::ranges::replace(ids, student_.written(stop), student_.reads(stop)[0]);
    return ids;
  }
  /// What such a value adds to the stream, [T, D].
  at::Tensor added(Chunk& chunk, int k, ValueId id) const {
    const at::Tensor& value = chunk.student().value(id);
    const NodeId unpermute = student_.unpermute(k);
    if (unpermute == no_node || id != student_.reads(unpermute)[0]) return rows(value);
    return rows(nn::unpermute(value, row_weights(chunk, k), plan_of(chunk, k)));
  }
  /// The gate's, [T, top_k], of rows that are summed; undefined where they were weighed before.
  at::Tensor row_weights(Chunk& chunk, int k) const {
    if (model_.router.weigh_input) return {};
    return chunk.student().value(student_.reads(student_.unpermute(k))[1]);
  }

  /// What the student would have to add at `site` for its stream to be the teacher's behind it. [T, D]
  at::Tensor wanted(Chunk& chunk, int k, MapSite site) {
    at::Tensor sum = chunk.missing;
    // Of a layer's outputs attention's has been added to what is missing.
    for (const ValueId id : teacher_.outputs(k, site == MapSite::layer_output ? MapSite::feed_forward_output : site)) {
      const at::Tensor added = rows(chunk.teacher().value(id));
      sum = sum.defined() ? sum + added : added;
    }
    return sum;
  }

  /// What the student adds to the stream is mapped to what it would have to add: behind it, or, for a first map, where
  /// the rows of experts have returned (`stop`).
  void map_outputs(int k, MapSite site, NodeId stop = no_node) {
    const bool behind = stop == no_node;
    if (behind) stop = student_.behind(k, site);
    const std::vector<ValueId> ids = outputs(k, site, stop);
    Both sums(width(), std::ssize(ids));
    for (Chunk& chunk : chunks_) {
      chunk.student().run_before(stop);
      std::vector<at::Tensor> parts;
      for (const ValueId id : ids) parts.push_back(added(chunk, k, id));
      sums.of(chunk).add(at::cat(parts, -1), wanted(chunk, k, site));
      park(chunk);
    }
    const std::vector<at::Tensor> maps = map(k, site, sums);
    for (Chunk& chunk : chunks_) {
      for (size_t i = 0; i < maps.size(); ++i) {
        const at::Tensor& part = chunk.student().value(ids[i]);
        chunk.student().replace(ids[i], at::matmul(part, maps[i].t().to(part.scalar_type())));
      }
      if (behind) {
        chunk.missing = wanted(chunk, k, site);
        for (const ValueId id : ids) chunk.missing = chunk.missing - rows(chunk.student().value(id));
      }
      park(chunk);
    }
  }

  void map_head_input() {
    // Embeddings would change with a head that is tied to them.
    if (weights_.lm_head.value.is_same(weights_.embed_tokens.value)) return;
    Both sums(width());
    for (Chunk& chunk : chunks_) {
      chunk.teacher().run_before(teacher_.head());
      chunk.student().run_before(student_.head());
      sums.of(chunk).add(normed(student_.input(chunk.student(), student_.head()), weights_.norm),
                         normed(teacher_.input(chunk.teacher(), teacher_.head()), weights_.norm));
      park(chunk);
    }
    teachers_head_ = weights_.lm_head.value.clone();
    map(model_.num_layers(), MapSite::head_input, sums);
  }

  void park(Chunk& chunk) {
    for (PartialRun& run : chunk.runs) {
      run.exchange([&](const at::Tensor& value) { return spool_.keep(value); });
    }
    for (at::Tensor* value : {&chunk.missing, &chunk.teacher_input}) {
      if (value->defined()) *value = spool_.keep(*value);
    }
  }

  void compare(PartialRun teacher, PartialRun student, Agreement& sum) {
    exchange_heads();
    teacher.run_before(teacher_.loss());
    exchange_heads();
    student.run_before(student_.loss());
    add_tokens(sum, teacher_.input(teacher, teacher_.loss()), student_.input(student, student_.loss()));
  }

  /// Teacher and student have one set of weights; of the head, which is mapped before the teacher has used it, two.
  void exchange_heads() {
    if (!teachers_head_.defined()) return;
    const at::Tensor other = weights_.lm_head.value.clone();
    weights_.lm_head.value.copy_(teachers_head_);
    teachers_head_ = other;
  }

  const ModelConfig& model_;
  const CalibrationOptions& options_;
  Transport& world_;
  nn::ModelWeights weights_;
  const int64_t expert_rank_;
  StageMath math_;
  Walker teacher_, student_;
  TensorSpool spool_;
  std::vector<Chunk> chunks_;
  at::Tensor teachers_head_;  ///< where the student's has been mapped
  CalibrationReport report_;
};

}  // namespace

MappedWeights CalibrationReport::mapped_weights(nn::ModelWeights& weights) const {
  MappedWeights all;
  const auto add = [&](int64_t layer, MapSite site) {
    for (const MappedWeights& part : weights_of_parts(weights, layer, site))
      all.insert(all.end(), part.begin(), part.end());
  };
  for (const Map& map : maps) {
    if (map.num_mapped == 0) continue;
    add(map.layer, map.site);
    // Experts without a map of their own have the layer's.
    if (map.site == MapSite::feed_forward_input) add(map.layer, MapSite::expert_input);
  }
  return all;
}

CalibrationReport calibrate(const ModelConfig& model, const Connectivity& teacher, const Connectivity& student,
                            ParameterSet& parameters, const Communicators& communicators, const Layout& layout,
                            const at::Tensor& tokens, const CalibrationOptions& options) {
  const at::NoGradGuard no_grad;
  return Calibration(model, teacher, student, parameters, communicators, layout, tokens, options).run();
}

}  // namespace farskip
