#pragma once
// One model's forward graph, what runs it, and where on its way calibration stops.

#include <ATen/ATen.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "distill/map_site.h"
#include "exec/partial_run.h"
#include "nn/loss.h"

namespace farskip {

class Walker {
 public:
  Walker(const ModelConfig& model, const Connectivity& connectivity, const StageMath& math,
         const Communicators& communicators, const Layout& layout)
      : graph_(build_graph(model, connectivity, {Phase::train, layout, 1, Scope::forward})),
        executor_(graph_, reference_schedule(graph_), math, communicators, {.record_spans = false}) {}

  PartialRun start(const at::Tensor& tokens) {
    return {executor_, Batch{tokens, at::full_like(tokens, nn::ignored_target), 1}};
  }

  NodeId qkv(int layer) const { return first(layer, {Stage::qkv}); }
  /// The first reader of the feed-forward's input.
  NodeId feed_forward(int layer) const { return first(layer, {Stage::route, Stage::dense}); }
  NodeId head() const { return first(graph_.num_layers(), {Stage::head}); }
  NodeId loss() const { return first(graph_.num_layers(), {Stage::loss}); }
  /// Before rows are made for experts, and before what they return is summed; no_node where no rows are exchanged.
  NodeId permute(int layer) const { return exchanges(layer) ? first(layer, {Stage::permute}) : no_node; }
  NodeId unpermute(int layer) const { return exchanges(layer) ? first(layer, {Stage::unpermute}) : no_node; }
  /// Where what `site` writes is there, and has not been read.
  NodeId behind(int layer, MapSite site) const {
    if (site == MapSite::attention_output) return first(layer, {Stage::view_ff});
    return first(layer + 1, {Stage::view_attn, Stage::qkv, Stage::view_head, Stage::head});
  }

  const std::vector<ValueId>& reads(NodeId node) const { return graph_.node(node).reads; }
  ValueId written(NodeId node) const { return graph_.node(node).writes[0]; }
  /// What `node` reads first.
  const at::Tensor& input(const PartialRun& run, NodeId node) const { return run.value(reads(node)[0]); }
  /// What `site` adds to the residual stream, in the order of weights_of_parts().
  std::vector<ValueId> outputs(int layer, MapSite site) const {
    std::vector<NodeId> nodes;
    if (site != MapSite::feed_forward_output) nodes = {first(layer, {Stage::attn_out})};
    if (site != MapSite::attention_output) {
      nodes.push_back(first(layer, {Stage::reduce_scatter, Stage::unpermute, Stage::dense}));
      nodes.push_back(first(layer, {Stage::shared}));
    }
    std::vector<ValueId> values;
    for (const NodeId node : nodes) {
      if (node != no_node) values.push_back(graph_.node(node).writes[0]);
    }
    return values;
  }
  /// The feed-forward does not read its layer's attention: both enter the stream behind it.
  bool joins_late(int layer) const {
    const std::vector<ValueId>& view = reads(first(layer, {Stage::view_ff}));
    return std::ranges::find(view, outputs(layer, MapSite::attention_output)[0]) == view.end();
  }
  /// Where what enters the stream behind the feed-forward is mapped.
  MapSite late_outputs(int layer) const {
    return joins_late(layer) ? MapSite::layer_output : MapSite::feed_forward_output;
  }

 private:
  bool exchanges(int layer) const { return first(layer, {Stage::combine}) != no_node; }
  /// The first of these stages that a layer has.
  NodeId first(int layer, std::initializer_list<Stage> stages) const {
    for (const Stage stage : stages) {
      if (const NodeId node = graph_.find(0, layer, Pass::forward, stage); node != no_node) return node;
    }
    return no_node;
  }

  StageGraph graph_;
  Executor executor_;
};

}  // namespace farskip
