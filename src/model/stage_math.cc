#include "model/stage_math.h"

#include <ATen/ATen.h>

#include <ATen/core/grad_mode.h>
#include <algorithm>

#include "base/error.h"
#include "nn/attention.h"
#include "nn/experts.h"
#include "nn/linear.h"
#include "nn/loss.h"
#include "nn/norm.h"
#include "nn/router.h"

namespace farskip {
namespace {

nn::RotaryTable positions_of(const Batch& batch, const nn::RotaryTable& table) {
  return batch.positions.defined() ? table.positions(batch.positions) : table.positions(0, batch.tokens.size(1));
}

}  // namespace

int64_t num_moe_layers(const ModelConfig& model) {
  return std::count(model.layers.begin(), model.layers.end(), LayerKind::moe);
}

StageMath::StageMath(const ModelConfig& config, nn::ModelWeights weights, int64_t max_positions,
                     StageMathOptions options)
    : config_(config),
      weights_(std::move(weights)),
      rotary_(nn::make_rotary(config.attention.rotary, config.attention.qk_rope_head_dim, max_positions,
                              weights_.embed_tokens.value.device())),
      options_(options) {}

std::vector<at::Tensor> StageMath::route(const Node& node, const nn::Input& u, Microbatch& state,
                                         nn::WeightGradQueue* queue) const {
  const auto& moe = weights_.layers[node.layer].moe;
  const at::Tensor& u_BSD = u.value;
  const auto routing = nn::route({u_BSD.reshape({-1, u_BSD.size(-1)}), u.again}, moe.router, moe.correction_bias,
                                 config_.router, config_.top_k, queue, state.batch.experts_of(node.layer));
  LayerRouting& record = state.routing[node.layer];
  if (options_.exchange != Exchange::all_to_all) return {routing.p, routing.ids};
  record.plan = nn::make_route_plan(routing.ids, config_.num_experts, options_.expert_ranks);
  record.load = record.plan.send_counts.flatten();
  at::Tensor p = routing.p;
  if (options_.aux_loss_alpha > 0 && at::GradMode::is_enabled()) {
    if (options_.aux_scope == nn::AuxScope::global) {
      // A gate that is computed again finds what others have written.
      if (!record.global_load.defined())
        record.global_load = at::zeros({config_.num_experts}, record.load.options().dtype(at::kDouble));
      if (!record.aux_loss.defined()) record.aux_loss = at::zeros({}, p.options().requires_grad(false));
      p = nn::attach_global_loss(p, routing, record.global_load, record.aux_loss, options_.aux_loss_alpha,
                                 state.batch.share);
    } else {
      const int64_t num_sequences = options_.aux_scope == nn::AuxScope::sequence ? u_BSD.size(0) : 1;
      const auto loss = nn::sequence_aux_loss(routing, num_sequences, options_.aux_loss_alpha);
      p = nn::attach_loss(p, loss, state.batch.share);
      record.aux_loss = loss.detach();
    }
  }
  if (options_.z_loss_coeff > 0 && at::GradMode::is_enabled()) {
    const auto loss = nn::z_loss(routing, options_.z_loss_coeff);
    p = nn::attach_loss(p, loss, state.batch.share);
    record.z_loss = loss.detach();
  }
  if (options_.distill) {
    record.ids = routing.ids;
    if (options_.keep_scores) record.scores = routing.scores.detach();
    if (state.batch.router_weight > 0 && at::GradMode::is_enabled()) {
      const auto loss = nn::router_agreement(state.teacher->routing[node.layer].scores, routing.scores,
                                             state.batch.targets.reshape({-1}), state.batch.denominator);
      p = nn::attach_loss(p, loss, state.batch.router_weight / static_cast<double>(num_moe_layers(config_)));
      record.router_loss = loss.detach();
    }
  }
  if (options_.keep_routing_weights) record.weights = nn::dense_weights(routing, config_.num_experts);
  return {p, routing.ids};
}

void StageMath::plan_local(const Node& node, const at::Tensor& ids, Microbatch& state) const {
  if (options_.exchange == Exchange::all_to_all) return;
  LayerRouting& record = state.routing[node.layer];
  record.plan = nn::make_local_plan(ids, config_.num_experts, options_.expert_ranks, options_.expert_rank);
  record.load = record.plan.send_counts.flatten();
}

at::Tensor StageMath::distill_loss(const std::vector<at::Tensor>& in, Microbatch& state) const {
  const auto rows = [](const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); };
  const nn::TeacherTargets teacher = in.size() > 1 ? nn::TeacherTargets{.logits = rows(in[1])} : state.batch.teacher;
  nn::DistillLoss result = nn::distill_loss(rows(in[0]), teacher, state.batch.targets.reshape({-1}),
                                            options_.distill_loss, state.batch.denominator);
  state.figures = std::move(result.figures);
  if (in.size() <= 2) return result.loss;
  at::Tensor distance = in[2];
  for (size_t i = 3; i < in.size(); ++i) distance = distance + in[i];
  distance = distance / static_cast<double>(in.size() - 2);
  state.hidden_loss = distance.detach();
  return result.loss + state.batch.hidden_weight * distance;
}

std::vector<at::Tensor> StageMath::forward(const Node& node, const std::vector<at::Tensor>& in, Microbatch& state,
                                           nn::WeightGradQueue* queue) const {
  const bool in_layer = node.layer >= 0 && node.layer < config_.num_layers();
  static const nn::LayerWeights no_layer;
  const nn::LayerWeights& layer = in_layer ? weights_.layers[node.layer] : no_layer;
  const bool again = queue != nullptr && options_.recompute_norms;
  auto feed_forward_input = [&] { return nn::Input(in[0], again ? state.again.at(node.layer) : nullptr); };
  switch (node.stage) {
    case Stage::embed:
      state.rotary = positions_of(state.batch, rotary_);
      return {nn::embedding(state.batch.tokens, weights_.embed_tokens, queue)};
    case Stage::qkv: {
      const nn::Input n = nn::normed(in[0], layer.input_layernorm, config_.rms_norm_eps, queue, again);
      const bool rotates = config_.attention.of_layer(node.layer).rotary;
      const nn::RotaryTable rotary = rotates ? state.rotary : state.rotary.without_angles();
      const auto r = state.batch.cache
                         ? nn::compressed_qkv(n, layer.attention, config_.attention, rotary, config_.rms_norm_eps)
                         : nn::qkv(n, layer.attention, config_.attention, rotary, config_.rms_norm_eps, queue);
      std::vector<at::Tensor> out = {r.q, r.k, r.v};
      if (r.gate.defined()) out.push_back(r.gate);
      return out;
    }
    case Stage::attn_core:
      if (const nn::CacheStep* step = state.batch.cache)
        return {step->cache->attend(node.layer, in[0], in[1], in[2], layer.attention, step->chunks)};
      return {nn::attn_core(in[0], in[1], in[2], config_.attention.softmax_scale(), state.batch.documents,
                            config_.attention.of_layer(node.layer).chunk)};
    case Stage::attn_out:
      return {nn::attn_out(in[0], in.size() > 1 ? in[1] : at::Tensor{}, layer.attention, queue)};
    case Stage::view_ff: {
      nn::Input u = nn::normed(in[0], layer.post_attention_layernorm, config_.rms_norm_eps, queue, again);
      if (again) state.again[node.layer] = std::move(u.again);
      return {u.value};
    }
    case Stage::route:
      return route(node, feed_forward_input(), state, queue);
    case Stage::permute:
      plan_local(node, in[1], state);
      return {nn::permute(in[0].reshape({-1, in[0].size(-1)}), state.routing[node.layer].plan,
                          in.size() > 2 ? in[2] : at::Tensor{})};
    case Stage::experts:
      return {nn::experts(in[0], state.routing[node.layer].plan, layer.moe.gate_up, layer.moe.down, queue,
                          options_.recompute_activations)};
    case Stage::unpermute: {
      const auto& plan = state.routing[node.layer].plan;
      const at::Tensor r = nn::unpermute(in[0], config_.router.weigh_input ? at::Tensor{} : in[1], plan);
      if (options_.exchange == Exchange::gather) return {r.unsqueeze(0)};  // tokens of all ranks
      return {r.reshape({state.batch.tokens.size(0), state.batch.tokens.size(1), r.size(-1)})};
    }
    case Stage::shared:
      return {nn::feed_forward(feed_forward_input(), layer.moe.shared, queue, options_.recompute_activations)};
    case Stage::dense:
      return {nn::feed_forward(feed_forward_input(), layer.dense, queue)};
    case Stage::head: {
      const at::Tensor& rows = state.batch.head_rows;
      const at::Tensor x = rows.defined() ? in[0].index_select(1, rows) : in[0];
      const at::Tensor n = nn::rms_norm(x, weights_.norm, config_.rms_norm_eps, queue);
      return {nn::linear(n, weights_.lm_head, queue)};
    }
    case Stage::sample:  // the likeliest; whoever draws otherwise reads the logits
      return {in[0].argmax(-1)};
    case Stage::match:
      return {nn::stream_distance(in[0].reshape({-1, in[0].size(-1)}), in[1].reshape({-1, in[1].size(-1)}),
                                  state.batch.targets.reshape({-1}), state.batch.denominator)};
    case Stage::loss:
      if (options_.distill) return {distill_loss(in, state)};
      return {nn::cross_entropy(in[0].reshape({-1, in[0].size(-1)}), state.batch.targets.reshape({-1}),
                                state.batch.denominator)};
    default:
      FARSKIP_CHECK(false, "not a stage that computes");
      return {};
  }
}

}  // namespace farskip
