#include "sim/memory.h"

#include <algorithm>
#include <map>
#include <vector>

#include "base/error.h"

namespace farskip {
namespace {

// T tokens of a microbatch and rank, H hidden, K experts per token, R rows received, b bytes per value.

/// What a forward stage makes and keeps, in bytes.
struct Footprint {
  std::vector<double> writes = {};       ///< one per value written
  std::vector<size_t> kept_reads = {};   ///< indices of reads that its backward needs
  std::vector<size_t> kept_writes = {};  ///< indices of writes that its backward needs
  double backward = 0;                   ///< inner values kept for the backward
  double wgrad = 0;                      ///< inner values kept until the weight gradient
  bool wgrad_reads = false;              ///< the weight gradient needs the reads too
  bool wgrad_backward = false;           ///< and makes its input again from what is kept for the backward
};

class Sizes {
 public:
  Sizes(const StageGraph& graph, const ModelConfig& model, const Workload& load)
      : graph_(graph), m_(model), T_(load.tokens()), b_(load.bytes_per_value) {
    rows_ = T_ * static_cast<double>(m_.top_k);
    received_ = rows_ * load.skew;
  }

  Footprint of(const Node& node) const {
    const double H = static_cast<double>(m_.hidden_size), TH = T_ * H * b_;
    const double sums = static_cast<double>(node.sums.size());
    Footprint f;
    switch (node.stage) {
      case Stage::embed:
        return {.writes = {TH}};
      case Stage::view_attn:
      case Stage::view_match:
      case Stage::view_head:
        f.writes.assign(static_cast<size_t>(sums), TH);
        return f;
      case Stage::view_ff:  // the norm keeps what it reads: one of the sums, or the view itself
        f.writes.assign(static_cast<size_t>(sums) + 1, TH);
        if (sums > 0) f.kept_writes = {static_cast<size_t>(sums) - 1};
        if (sums == 0) f.kept_reads = {0};
        return f;
      case Stage::qkv:
        return qkv(m_.attention.of_layer(node.layer));
      case Stage::attn_core:
        return core();
      case Stage::attn_out:
        return {.writes = {TH}, .kept_reads = all_reads(node), .wgrad_reads = true};
      case Stage::route: {
        const bool norm_again = graph_.options().recompute.layernorm;
        const double E = static_cast<double>(m_.num_experts), K = static_cast<double>(m_.top_k);
        // Scores in fp32 and, in bf16, the router's fp32 copy of its input.
        return {.writes = {T_ * K * 4, T_ * K * 8},
                .kept_reads = norm_again ? std::vector<size_t>{} : std::vector<size_t>{0},
                .kept_writes = {0},
                .backward = 3 * T_ * E * 4,
                .wgrad = b_ < 4 && !norm_again ? T_ * H * 4 : 0,
                .wgrad_reads = true};
      }
      case Stage::permute:
        if (m_.router.weigh_input) return {.writes = {rows_ * H * b_}, .kept_reads = {0, 2}, .backward = 3 * rows_ * 8};
        return {.writes = {rows_ * H * b_}, .backward = 3 * rows_ * 8};
      case Stage::experts:
        return experts();
      case Stage::unpermute:
        if (m_.router.weigh_input) return {.writes = {TH}};
        return {.writes = {TH}, .kept_reads = {0, 1}};
      case Stage::shared:
        return feed_forward(static_cast<double>(m_.shared_intermediate_size), graph_.options().recompute.moe_act);
      case Stage::dense:
        return feed_forward(static_cast<double>(m_.intermediate_size), false);
      case Stage::head:
        return {.writes = {T_ * static_cast<double>(m_.vocab_size) * b_}, .kept_reads = {0}, .wgrad = TH};
      case Stage::match:
        return {.writes = {4}, .backward = TH};
      case Stage::loss:  // against a teacher's logits: the gradient stands where these were
        if (node.reads.size() > 1) return {.writes = {4}, .kept_reads = {1}};
        return {.writes = {4}, .kept_reads = {0}, .backward = T_ * 4};
      case Stage::dispatch:
        return {.writes = {received_ * H * b_}};
      case Stage::combine:
        return {.writes = {rows_ * H * b_}};
      case Stage::counts:
        return {.writes = {static_cast<double>(m_.num_experts) * 8 + received_ * 16}};
      case Stage::expert_load:
        return {.writes = {static_cast<double>(m_.num_experts) * 8}};
      default:
        fail("memory of stage {} is not known; prediction covers training with the all-to-all layout",
             to_string(node.stage));
    }
  }

 private:
  static std::vector<size_t> all_reads(const Node& node) {
    std::vector<size_t> indices(node.reads.size());
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = i;
    return indices;
  }

  Footprint qkv(const LayerAttention& layer) const {
    const AttentionConfig& a = m_.attention;
    const double heads = static_cast<double>(a.num_heads), qk = static_cast<double>(a.qk_head_dim());
    const double v = static_cast<double>(a.v_head_dim), H = static_cast<double>(m_.hidden_size);
    const bool norm_again = graph_.options().recompute.layernorm;
    const double latents = norm_again ? 1 : 2;  // before their norm, and after it
    Footprint f{.kept_reads = {0}, .wgrad = norm_again ? 0 : H, .wgrad_reads = true};  // the normed input
    if (a.kind == AttentionKind::mla) {
      f.writes = {heads * qk, heads * qk, heads * v};
      f.wgrad += static_cast<double>(a.kv_lora_rank) * latents + static_cast<double>(a.qk_rope_head_dim);
      f.wgrad += static_cast<double>(a.q_lora_rank) * latents;
    } else {
      const double kv_heads = static_cast<double>(a.num_kv_heads);
      f.writes = {heads * qk, kv_heads * qk, kv_heads * v};
      if (a.qk_norm || a.qk_norm_all_heads) f.wgrad += (heads + kv_heads) * qk;
      if (a.qk_l2_norm && layer.rotary) f.backward = T_ * (heads + kv_heads) * (qk * b_ + 4);
    }
    if (a.gated) {
      f.writes.push_back(heads * v);
      f.kept_writes = {3};
    }
    for (double& bytes : f.writes) bytes *= T_ * b_;
    f.wgrad *= T_ * b_;
    return f;
  }

  /// Keeps what it read and wrote, and one fp32 per row and head. (Where nn/flash_attention.h has no kernel, values are
  /// padded to the keys' width, which is not counted.)
  Footprint core() const {
    const double heads = static_cast<double>(m_.attention.num_heads), v = static_cast<double>(m_.attention.v_head_dim);
    return {.writes = {T_ * heads * v * b_}, .kept_reads = {0, 1, 2}, .kept_writes = {0}, .backward = T_ * heads * 4};
  }

  Footprint experts() const {
    const double H = static_cast<double>(m_.hidden_size), I = static_cast<double>(m_.moe_intermediate_size);
    const bool reordered = graph_.options().layout.ep > 1;
    Footprint f{.writes = {received_ * H * b_}};
    if (graph_.options().recompute.moe_act) {
      f.wgrad_backward = true;
    } else {
      f.wgrad = received_ * I * b_;
    }
    f.backward = received_ * 2 * I * b_;
    if (reordered) {
      f.wgrad += received_ * H * b_;
    } else {
      f.kept_reads = {0};
      f.wgrad_reads = true;
    }
    return f;
  }

  Footprint feed_forward(double width, bool activation_again) const {
    return {.writes = {T_ * static_cast<double>(m_.hidden_size) * b_},
            .kept_reads = graph_.options().recompute.layernorm ? std::vector<size_t>{} : std::vector<size_t>{0},
            .backward = T_ * 2 * width * b_,
            .wgrad = activation_again ? 0 : T_ * width * b_,
            .wgrad_reads = true,
            .wgrad_backward = activation_again};
  }

  const StageGraph& graph_;
  const ModelConfig& m_;
  double T_, b_, rows_ = 0, received_ = 0;
};

/// Walks a schedule. A buffer lives while a value that is still to be read, or a stage that keeps it, holds it.
class Walk {
 public:
  Walk(const StageGraph& graph, const ModelConfig& model, const Workload& load)
      : graph_(graph),
        model_(model),
        value_bytes_(load.bytes_per_value),
        sizes_(graph, model, load),
        values_(graph.num_values(), -1),
        readers_left_(graph.num_values(), 0),
        kept_for_backward_(graph.num_nodes()),
        kept_for_wgrad_(graph.num_nodes()) {
    for (ValueId v = 0; v < graph.num_values(); ++v) readers_left_[v] = static_cast<int>(graph.value(v).readers.size());
  }

  void run(const Schedule& schedule) {
    for (const Op& op : schedule.ops) {
      const Node& node = graph_.node(op.node);
      if (node.pass == Pass::step) continue;  // reductions come after the peak
      if (op.kind == OpKind::await) {
        release_reads(node);
        continue;
      }
      switch (node.pass) {
        case Pass::forward:
        case Pass::teacher:
        case Pass::recompute:
          forward(op.node);
          break;
        case Pass::backward:
          backward(op.node);
          break;
        default:
          weight_gradient(op.node);
          break;
      }
      if (op.kind == OpKind::run) release_reads(node);
    }
  }

  double peak = 0;
  NodeId peak_at = no_node;

 private:
  int allocate(double bytes) {
    live_ += bytes;
    buffers_.push_back({bytes, 0});
    return static_cast<int>(buffers_.size()) - 1;
  }
  void hold(std::vector<int>& holder, int buffer) {
    if (buffer < 0) return;
    ++buffers_[buffer].second;
    holder.push_back(buffer);
  }
  void release(int buffer) {
    if (buffer >= 0 && --buffers_[buffer].second == 0) live_ -= buffers_[buffer].first;
  }
  void release_all(std::vector<int>& holder) {
    for (int buffer : holder) release(buffer);
    holder.clear();
  }
  void assign(ValueId value, double bytes) {
    if (readers_left_[value] == 0) return;
    std::vector<int> held;
    hold(held, allocate(bytes));
    values_[value] = held.front();
  }
  void release_reads(const Node& node) {
    for (const auto* ids : {&node.reads, &node.after}) {
      for (ValueId v : *ids) {
        if (--readers_left_[v] == 0) release(values_[v]);
      }
    }
  }
  void note(NodeId id, double passing) {
    if (live_ + passing <= peak) return;
    peak = live_ + passing;
    peak_at = id;
  }

  void forward(NodeId id) {
    const Node& node = graph_.node(id);
    const Footprint f = sizes_.of(node);
    FARSKIP_CHECK(f.writes.size() == node.writes.size(), "a size for each value");
    for (size_t i = 0; i < node.writes.size(); ++i) {
      assign(node.writes[i], f.writes[i]);
      bytes_of_[node.writes[i]] = f.writes[i];
    }
    note(id, 0);
    if (node.recompute != no_node || node.pass == Pass::teacher) return;  // it keeps nothing
    auto& backward = kept_for_backward_[id];
    auto& wgrad = kept_for_wgrad_[id];
    for (size_t i : f.kept_reads) {
      hold(backward, values_[node.reads[i]]);
      if (f.wgrad_reads) hold(wgrad, values_[node.reads[i]]);
    }
    for (size_t i : f.kept_writes) hold(backward, values_[node.writes[i]]);
    if (f.backward > 0) {
      const int buffer = allocate(f.backward);
      hold(backward, buffer);
      if (f.wgrad_backward) hold(wgrad, buffer);
    }
    if (f.wgrad > 0) hold(wgrad, allocate(f.wgrad));
    note(id, 0);
  }

  void backward(NodeId id) {
    const Node& node = graph_.node(id);
    const Node& forward = graph_.node(node.forward);
    // Several contributions are added into a new tensor; the gradient of what the stage wrote lives on for its weights.
    double sums = 0, gradients = 0;
    for (size_t i = 0; i < node.output_grads.size(); ++i) {
      const double bytes = bytes_of_[forward.writes[i]];
      if (node.output_grads[i].size() > 1) sums += bytes;
      gradients += bytes;
    }
    for (size_t i = 0; i < node.input_grads.size(); ++i) {
      if (node.input_grads[i] != no_value) assign(node.input_grads[i], bytes_of_[forward.reads[i]]);
    }
    const Footprint f = sizes_.of(forward);
    note(id, sums + f.backward);  // inner gradients are about what was kept
    const bool has_weights = row(forward.stage).has_weights;
    if (has_weights) hold(kept_for_wgrad_[graph_.saved_by(node)], allocate(inner_gradients(forward, gradients)));
    release_all(kept_for_backward_[graph_.saved_by(node)]);
  }

  /// What weight gradients keep of the backward pass: the gradient of each product's output.
  double inner_gradients(const Node& forward, double outputs) const {
    const Footprint f = sizes_.of(forward);
    switch (forward.stage) {
      case Stage::experts:
      case Stage::shared:
      case Stage::dense:
        return outputs + f.backward;
      case Stage::qkv:
        return outputs * 1.2;
      default:
        return outputs;
    }
  }

  void weight_gradient(NodeId id) {
    const Node& node = graph_.node(id);
    double weights = 0;  // the product, before it is added to the fp32 gradient
    if (graph_.node(node.forward).stage == Stage::experts) {
      weights = 3.0 *
                static_cast<double>(model_.num_experts / graph_.options().layout.ep * model_.hidden_size *
                                    model_.moe_intermediate_size) *
                value_bytes_;
    }
    note(id, weights);
    release_all(kept_for_wgrad_[graph_.saved_by(node)]);
  }

  const StageGraph& graph_;
  const ModelConfig& model_;
  double value_bytes_;
  Sizes sizes_;
  double live_ = 0;
  std::vector<std::pair<double, int>> buffers_;  ///< bytes, holders
  std::vector<int> values_;                      ///< buffer of each value, -1: none
  std::vector<int> readers_left_;
  std::map<ValueId, double> bytes_of_;
  std::vector<std::vector<int>> kept_for_backward_, kept_for_wgrad_;  ///< by forward node
};

/// Weights of a model, all experts counted.
struct WeightCounts {
  double replicated = 0, experts = 0;
  double routers = 0;  ///< of the replicated ones
};

}  // namespace

MemoryPlan plan_memory(const StageGraph& graph, const Schedule& schedule, const ModelConfig& model,
                       const Workload& load) {
  FARSKIP_CHECK(graph.options().phase == Phase::train);
  const double experts_whole =
      static_cast<double>(model.num_experts * 3 * model.hidden_size * model.moe_intermediate_size);
  double routers = 0, experts = 0;
  for (int64_t layer = 0; layer < model.num_layers(); ++layer) {
    if (!model.is_moe(layer)) continue;
    experts += experts_whole;
    routers += static_cast<double>(model.num_experts * model.hidden_size);
  }
  const WeightCounts all{static_cast<double>(model.num_parameters()) - experts, experts, routers};
  WeightCounts trained = all;
  for (const auto& [where, count] : load.frozen) {
    (where.second == Stage::experts ? trained.experts : trained.replicated) -= count;
    if (where.second == Stage::route) trained.routers -= count;
  }
  const Layout& layout = graph.options().layout;
  const auto held = [&](const WeightCounts& of) { return of.replicated + of.experts / layout.ep; };
  MemoryPlan plan;
  const bool masters = load.bytes_per_value < 4;
  plan.weights = (held(all) - routers) * load.bytes_per_value + routers * 4;
  // What the optimizer of one of the replicas keeps.
  const bool shared_out = graph.options().shard_optimizer;
  const double replicas = shared_out ? layout.world() : 1, expert_replicas = shared_out ? layout.dp : 1;
  const auto kept = [&](const WeightCounts& of) {
    return of.replicated / replicas + of.experts / layout.ep / expert_replicas;
  };
  plan.teacher = graph.options().teacher ? plan.weights : 0;
  plan.masters = masters ? (kept(trained) - trained.routers / replicas) * 4 : 0;
  plan.gradients = held(trained) * 4;
  plan.moments = kept(trained) * 8;
  Walk walk(graph, model, load);
  walk.run(schedule);
  plan.activations = walk.peak;
  plan.peak_at = graph.name(walk.peak_at);
  return plan;
}

}  // namespace farskip
