// The layer, said once: the forward stages of one microbatch in each of the three parallel forms.

#include <algorithm>
#include <map>

#include "base/error.h"
#include "layer/stage_graph.h"
#include "layer/streams.h"

namespace farskip {
namespace {

class ForwardBuilder {
 public:
  ForwardBuilder(StageGraph& graph, const ModelConfig& model, const Connectivity& connectivity, int microbatch,
                 Pass pass)
      : graph_(graph),
        model_(model),
        connectivity_(connectivity),
        microbatch_(microbatch),
        pass_(pass),
        exchange_(graph.options().layout.exchange(graph.options().phase)) {}

  /// Up to the loss, which is taken against `teacher` where it has logits; a teacher's pass up to its logits.
  TeacherValues build(const TeacherValues& teacher) {
    layer_ = -1;
    const ValueId embedding = value("x0");
    node(Stage::embed, {}, {embedding});
    Streams streams(graph_, model_, prefix(), embedding);
    for (layer_ = 0; layer_ < graph_.num_layers(); ++layer_) {
      outputs_.clear();
      const auto leaves = leaf_groups();
      add_attention(streams);
      // Attention alone joins the stream at once, since this layer's feed-forward may read it; the others wait for it.
      for (const auto& group : leaves) {
        if (Leaf{group}.is_attention()) streams.add_leaf(layer_, {group, join(group)});
      }
      const ValueId input = add_view(Stage::view_ff, streams);
      if (model_.is_moe(layer_)) {
        add_moe(input);
      } else {
        node(Stage::dense, {input}, {output(Contribution::dense, "dense")});
      }
      for (const auto& group : leaves) {
        if (!Leaf{group}.is_attention()) streams.add_leaf(layer_, {group, join(group)});
      }
      if (graph_.options().match_streams) add_match(streams, teacher);
    }
    const ValueId logits = value("logits");
    node(Stage::head, {add_view(Stage::view_head, streams)}, {logits});
    if (pass_ == Pass::teacher) return {logits, std::move(compared_)};
    if (teacher.logits != no_value) {
      std::vector<ValueId> reads = {logits, teacher.logits};
      reads.insert(reads.end(), compared_.begin(), compared_.end());
      node(Stage::loss, std::move(reads), {value("loss", false)});
      return {};
    }
    const bool train = graph_.options().phase == Phase::train;
    node(train ? Stage::loss : Stage::sample, {logits}, {value(train ? "loss" : "token", false)});
    return {};
  }

 private:
  std::string prefix() const { return fmt::format("mb{}.{}", microbatch_, pass_ == Pass::teacher ? "teacher." : ""); }
  ValueId value(const std::string& name, bool differentiable = true) {
    return graph_.add_value(prefix() + name, differentiable);
  }
  /// A value of the current layer: "mb0.l3.name".
  ValueId local(const std::string& name, bool differentiable = true) {
    return value(fmt::format("l{}.{}", layer_, name), differentiable);
  }
  NodeId node(Stage stage, std::vector<ValueId> reads, std::vector<ValueId> writes, Group group = Group::none) {
    Node made;
    made.microbatch = microbatch_;
    made.layer = layer_;
    made.pass = pass_;
    made.stage = stage;
    made.group = group;
    made.reads = std::move(reads);
    made.writes = std::move(writes);
    return graph_.add_node(std::move(made));
  }

  /// The stream as `stage`'s reader sees it. Returns the view; a view_ff also writes its norm, which is returned
  /// instead.
  ValueId add_view(Stage stage, Streams& streams) {
    Node made;
    made.microbatch = microbatch_;
    made.layer = layer_;
    made.pass = pass_;
    made.stage = stage;
    ValueId view = no_value;
    if (stage == Stage::view_attn) {
      view = streams.before(layer_, attention_reach(connectivity_.layer(layer_), layer_), made.sums);
    } else if (stage == Stage::view_ff) {
      view = streams.between(layer_, feed_forward_reach(connectivity_.layer(layer_), layer_), made.sums);
    } else {
      view = streams.before(layer_, Reach{layer_, layer_}, made.sums);
    }
    auto read = [&](ValueId id) {
      const bool own = std::any_of(made.sums.begin(), made.sums.end(), [&](const Sum& sum) { return sum.out == id; });
      if (!own && std::find(made.reads.begin(), made.reads.end(), id) == made.reads.end()) made.reads.push_back(id);
    };
    for (const Sum& sum : made.sums) {
      read(sum.left);
      read(sum.right);
      made.writes.push_back(sum.out);
    }
    if (stage != Stage::view_ff) {
      if (!made.sums.empty()) graph_.add_node(std::move(made));
      return view;
    }
    made.view = view;
    read(view);
    const ValueId normed = local("u");
    made.writes.push_back(normed);
    graph_.add_node(std::move(made));
    return normed;
  }

  /// The whole stream behind this layer, for the student with its distance from the teacher's.
  void add_match(Streams& streams, const TeacherValues& teacher) {
    ++layer_;
    const ValueId view = add_view(Stage::view_match, streams);
    if (pass_ == Pass::teacher) {
      compared_.push_back(view);
    } else {
      compared_.push_back(local("distance"));
      node(Stage::match, {view, teacher.streams.at(static_cast<size_t>(layer_ - 1))}, {compared_.back()});
    }
    --layer_;
  }

  /// What a contribution of this layer is before any reduction.
  ValueId output(Contribution contribution, const char* name) { return outputs_[contribution] = local(name); }

  /// Contributions that enter the stream together: each by itself, unless partial sums can share an all-reduce.
  std::vector<std::vector<Contribution>> leaf_groups() const {
    if (exchange_ == Exchange::all_reduce) return shared_reductions(model_, connectivity_, layer_);
    std::vector<std::vector<Contribution>> alone;
    for (Contribution c : contributions(model_, layer_)) alone.push_back({c});
    return alone;
  }

  /// The value by which a group enters the stream: itself, or the all-reduce of its partial sums.
  ValueId join(const std::vector<Contribution>& group) {
    if (exchange_ != Exchange::all_reduce) return outputs_.at(group.front());
    std::vector<ValueId> partials;
    std::string name = "sum";
    for (Contribution c : group) {
      partials.push_back(outputs_.at(c));
      name += fmt::format(".{}", to_string(c));
    }
    constexpr Stage stages[] = {Stage::reduce_attn, Stage::reduce_routed, Stage::reduce_shared, Stage::reduce_dense};
    const ValueId sum = local(name);
    node(stages[static_cast<size_t>(group.front())], partials, {sum}, Group::expert);
    return sum;
  }

  void add_attention(Streams& streams) {
    const ValueId view = add_view(Stage::view_attn, streams);
    const ValueId q = local("q"), k = local("k"), v = local("v"), core = local("core");
    std::vector<ValueId> projected = {q, k, v}, out_reads = {core};
    if (model_.attention.gated) {
      projected.push_back(local("gate"));
      out_reads.push_back(projected.back());
    }
    node(Stage::qkv, {view}, projected);
    const NodeId attention = node(Stage::attn_core, {q, k, v}, {core});
    // In inference a microbatch may go on with the sequences of the one before: their positions are in the cache then.
    if (graph_.options().phase != Phase::train && microbatch_ > 0) {
      const NodeId before = graph_.find(microbatch_ - 1, layer_, Pass::forward, Stage::attn_core);
      graph_.wait_for(attention, graph_.node(before).writes[0]);
    }
    node(Stage::attn_out, out_reads, {output(Contribution::attention, "attn")});
  }

  void add_moe(ValueId u) {
    const ValueId p = local("p"), ids = local("ids", false);
    const NodeId route = node(Stage::route, {u}, {p, ids});
    const bool student = pass_ == Pass::forward;
    if (student && graph_.options().match_routes) {
      const NodeId decided = graph_.find(microbatch_, layer_, Pass::teacher, Stage::route);
      graph_.wait_for(route, graph_.node(decided).writes[1]);
    }
    if (student && graph_.options().expert_load && graph_.options().scope != Scope::forward) add_expert_load(ids);
    switch (exchange_) {
      case Exchange::all_to_all:
        add_exchanged_experts(u, p, ids);
        break;
      case Exchange::all_reduce: {
        add_shared(u);
        add_local_experts(u, p, ids, output(Contribution::routed, "routed"));
        break;
      }
      case Exchange::gather: {
        const ValueId all_u = local("all_u"), all_p = local("all_p"), all_ids = local("all_ids", false);
        const ValueId partial = local("all_routed");
        node(Stage::gather, {u, p, ids}, {all_u, all_p, all_ids}, Group::expert);
        add_shared(u);
        add_local_experts(all_u, all_p, all_ids, partial);
        node(Stage::reduce_scatter, {partial}, {output(Contribution::routed, "routed")}, Group::expert);
        break;
      }
    }
  }

  /// The sum grows from microbatch to microbatch.
  void add_expert_load(ValueId ids) {
    std::vector<ValueId> reads = {ids};
    const NodeId before = graph_.find(microbatch_ - 1, layer_, Pass::forward, Stage::expert_load);
    if (before != no_node) reads.push_back(graph_.node(before).writes[0]);
    node(Stage::expert_load, std::move(reads), {local("load", false)}, Group::world);
  }

  void add_shared(ValueId u) {
    if (model_.has_shared()) node(Stage::shared, {u}, {output(Contribution::shared, "shared")});
  }

  NodeId add_permute(ValueId u, ValueId p, ValueId ids, ValueId rows) {
    std::vector<ValueId> reads = {u, ids};
    if (model_.router.weigh_input) reads.push_back(p);
    return node(Stage::permute, std::move(reads), {rows});
  }

  /// Rows are weighed on one side of the experts.
  NodeId add_unpermute(ValueId rows, ValueId p, ValueId ids, ValueId sum) {
    if (model_.router.weigh_input) return node(Stage::unpermute, {rows, ids}, {sum});
    return node(Stage::unpermute, {rows, p, ids}, {sum});
  }

  /// Rows travel to the ranks of their experts and back.
  void add_exchanged_experts(ValueId u, ValueId p, ValueId ids) {
    const ValueId plan = local("plan", false), rows = local("rows"), received = local("received");
    const ValueId done = local("done"), returned = local("returned");
    node(Stage::counts, {ids}, {plan}, Group::expert);
    add_permute(u, p, ids, rows);
    node(Stage::dispatch, {rows, plan}, {received}, Group::expert);
    add_shared(u);
    node(Stage::experts, {received, plan}, {done});
    node(Stage::combine, {done, plan}, {returned}, Group::expert);
    add_unpermute(returned, p, ids, output(Contribution::routed, "routed"));
  }

  /// Every rank has all tokens and runs its own experts on them: a partial sum, without split sizes on the host.
  void add_local_experts(ValueId u, ValueId p, ValueId ids, ValueId partial) {
    const ValueId rows = local("rows"), done = local("done");
    add_permute(u, p, ids, rows);
    node(Stage::experts, {rows, ids}, {done});
    add_unpermute(done, p, ids, partial);
  }

  StageGraph& graph_;
  const ModelConfig& model_;
  const Connectivity& connectivity_;
  int microbatch_;
  Pass pass_;
  int layer_ = -1;
  Exchange exchange_;
  std::vector<ValueId> compared_;  ///< a teacher's streams; a student's distances from them
  std::map<Contribution, ValueId> outputs_;
};

}  // namespace

TeacherValues add_teacher(StageGraph& graph, const ModelConfig& model, int microbatch) {
  return ForwardBuilder(graph, model, *graph.options().teacher, microbatch, Pass::teacher).build({});
}

NodeId add_forward(StageGraph& graph, const ModelConfig& model, const Connectivity& connectivity, int microbatch,
                   const TeacherValues& teacher) {
  const NodeId begin = graph.num_nodes();
  ForwardBuilder(graph, model, connectivity, microbatch, Pass::forward).build(teacher);
  return begin;
}

}  // namespace farskip
