#include "model/plain_model.h"

#include <ATen/ATen.h>

#include <map>

#include "base/error.h"
#include "nn/attention.h"
#include "nn/experts.h"
#include "nn/linear.h"
#include "nn/loss.h"
#include "nn/norm.h"
#include "nn/permute.h"
#include "nn/rotary.h"
#include "nn/router.h"

namespace farskip {
namespace {

/// What one stage reads and adds: values of other stages through one alias each, sums of its own as they are.
class Reads {
 public:
  at::Tensor operator()(const at::Tensor& value) {
    at::Tensor& seen = seen_[value.unsafeGetTensorImpl()];
    if (!seen.defined()) seen = value.view_as(value);
    return seen;
  }
  at::Tensor add(const at::Tensor& left, const at::Tensor& right) {
    const at::Tensor l = (*this)(left), r = (*this)(right);
    const at::Tensor sum = l + r;
    seen_[sum.unsafeGetTensorImpl()] = sum;
    return sum;
  }

 private:
  std::map<const void*, at::Tensor> seen_;
};

/// The residual stream around one layer. Undefined: not needed by anybody so far.
struct Stream {
  at::Tensor x;                          ///< x_k, whole
  at::Tensor h;                          ///< x_k + attention of layer k
  at::Tensor attention, routed, shared;  ///< outputs of layer k; shared: also a dense feed-forward's

  /// x_k + a_k, once a_k is there.
  at::Tensor with_attention(Reads& reads) {
    if (!h.defined()) h = reads.add(x, attention);
    return h;
  }
  /// y_{k+1}: what layer k hands on without its routed output.
  at::Tensor without_routed(Reads& reads) {
    const at::Tensor base = with_attention(reads);
    return shared.defined() ? reads.add(base, shared) : base;
  }
  /// x_{k+1} = h + (r + s), from the layer's outputs.
  at::Tensor next(Reads& reads) {
    const at::Tensor base = with_attention(reads);
    if (!routed.defined()) return reads.add(base, shared);
    return reads.add(base, shared.defined() ? reads.add(routed, shared) : routed);
  }
};

class PlainModel {
 public:
  PlainModel(const ModelConfig& config, const nn::ModelWeights& weights, const Batch& batch,
             const PlainOptions& options)
      : config_(config),
        weights_(weights),
        batch_(batch),
        options_(options),
        rotary_(nn::make_rotary(config.attention.rotary, config.attention.qk_rope_head_dim, batch.tokens.size(1),
                                batch.tokens.device())) {
    if (batch.positions.defined()) rotary_ = rotary_.positions(batch.positions);
  }

  PlainResult forward(const Connectivity& connectivity) {
    Stream before;  // the layer before this one
    at::Tensor y = nn::embedding(batch_.tokens, weights_.embed_tokens, nullptr), x = y;
    for (int64_t k = 0; k < config_.num_layers(); ++k) {
      const Skip& skip = connectivity.layer(k);
      check(skip, k);
      if (k > 0) {
        Reads reads;
        x = at::Tensor();
        if (!misses_routed(skip, before)) x = before.next(reads);
        y = x.defined() ? x : before.without_routed(reads);
      }
      Stream stream;
      stream.attention = attention(y, weights_.layers[k], config_.attention.of_layer(k));
      Reads reads;
      stream.x = x.defined() ? x : before.next(reads);
      const at::Tensor seen = skip.ff_attention < 0 ? stream.with_attention(reads) : stream.x;
      const at::Tensor u = norm(reads(seen), weights_.layers[k].post_attention_layernorm);
      if (config_.is_moe(k)) {
        moe(stream, u, weights_.layers[k].moe, k);
      } else {
        stream.shared = nn::feed_forward(u, weights_.layers[k].dense, nullptr);
      }
      before = stream;
    }
    Reads reads;
    const at::Tensor n = norm(before.next(reads), weights_.norm);
    const at::Tensor logits = nn::linear(n, weights_.lm_head, nullptr);
    const at::Tensor loss =
        nn::cross_entropy(logits.reshape({-1, config_.vocab_size}), batch_.targets.reshape({-1}), batch_.denominator);
    return {loss, logits};
  }

 private:
  static void check(const Skip& skip, int64_t k) {
    if (skip.attention_routed > 1 || skip.ff_routed > 0 || skip.ff_attention > 0) {
      fail(
          "layer {} skips {},{},{}; the plain model knows attention that misses one routed output, and a feed-forward "
          "that misses its layer's attention",
          k, skip.attention_routed, skip.ff_routed, skip.ff_attention);
    }
  }

  /// Attention misses something only where the layer before has routed experts.
  static bool misses_routed(const Skip& skip, const Stream& before) {
    return skip.attention_routed == 1 && before.routed.defined();
  }

  at::Tensor norm(const at::Tensor& x, const nn::Param& weight) const {
    return nn::rms_norm(x, weight, config_.rms_norm_eps, nullptr);
  }

  at::Tensor attention(const at::Tensor& y, const nn::LayerWeights& layer, const LayerAttention& own) const {
    const auto r = nn::qkv(norm(y.view_as(y), layer.input_layernorm), layer.attention, config_.attention,
                           own.rotary ? rotary_ : rotary_.without_angles(), config_.rms_norm_eps, nullptr);
    const at::Tensor core =
        nn::attn_core(r.q, r.k, r.v, config_.attention.softmax_scale(), batch_.documents, own.chunk);
    return nn::attn_out(core, r.gate, layer.attention, nullptr);
  }

  /// p, with the auxiliary loss of layer k.
  at::Tensor with_aux_loss(const nn::Routing& routing, int64_t num_sequences, int64_t k) const {
    const double alpha = options_.aux_loss_alpha;
    if (alpha == 0) return routing.p;
    if (options_.aux_scope == nn::AuxScope::global) {
      FARSKIP_CHECK(options_.global_load != nullptr, "a global auxiliary loss needs the loads of earlier microbatches");
      options_.global_load->resize(config_.num_layers());
      at::Tensor& load = (*options_.global_load)[k];
      const at::Tensor own = nn::expert_load(routing.ids, config_.num_experts).to(at::kDouble);
      load = load.defined() ? load + own : own;
      return nn::attach_global_loss(routing.p, routing, load, at::zeros({}), alpha, batch_.share);
    }
    if (options_.aux_scope == nn::AuxScope::microbatch) num_sequences = 1;
    return nn::attach_loss(routing.p, nn::sequence_aux_loss(routing, num_sequences, alpha), batch_.share);
  }

  /// Three read u: the gate, the rows that travel, the shared experts; in this order.
  void moe(Stream& stream, const at::Tensor& u, const nn::MoeWeights& moe, int64_t k) const {
    const at::Tensor u_TD = u.view_as(u).reshape({-1, u.size(-1)});
    const auto routing =
        nn::route(u_TD, moe.router, moe.correction_bias, config_.router, config_.top_k, nullptr, batch_.experts_of(k));
    at::Tensor p = with_aux_loss(routing, u.size(0), k);
    if (options_.z_loss_coeff > 0) p = nn::attach_loss(p, nn::z_loss(routing, options_.z_loss_coeff), batch_.share);
    auto plan = nn::make_route_plan(routing.ids, config_.num_experts, 1);
    nn::complete_route_plan(plan, plan.send_counts);
    const bool weigh_input = config_.router.weigh_input;
    const at::Tensor rows = nn::permute(u.view_as(u).reshape({-1, u.size(-1)}), plan, weigh_input ? p : at::Tensor());
    if (config_.has_shared()) stream.shared = nn::feed_forward(u.view_as(u), moe.shared, nullptr);
    const at::Tensor done = nn::experts(rows, plan, moe.gate_up, moe.down, nullptr);
    stream.routed = nn::unpermute(done, weigh_input ? at::Tensor() : p, plan).reshape(u.sizes());
  }

  const ModelConfig& config_;
  const nn::ModelWeights& weights_;
  const Batch& batch_;
  const PlainOptions& options_;
  nn::RotaryTable rotary_;
};

}  // namespace

PlainResult plain_forward(const ModelConfig& config, const Connectivity& connectivity, const nn::ModelWeights& weights,
                          const Batch& batch, const PlainOptions& options) {
  return PlainModel(config, weights, batch, options).forward(connectivity);
}

nn::ModelWeights differentiable_copy(const ParameterSet& parameters) {
  nn::ModelWeights weights = parameters.weights();
  for (const auto& info : parameters.table().parameters()) {
    nn::Param& param = info.slot(weights);
    param.value = param.value.detach().clone().set_requires_grad(true);
  }
  if (parameters.table().tied()) weights.lm_head = weights.embed_tokens;
  return weights;
}

std::vector<at::Tensor> gradients(const ParameterTable& table, nn::ModelWeights weights) {
  std::vector<at::Tensor> result;
  for (const auto& info : table.parameters()) result.push_back(info.slot(weights).value.grad());
  return result;
}

}  // namespace farskip
