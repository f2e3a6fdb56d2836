#include "nn/router.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

#include "nn/deferred.h"
#include "nn/linear.h"
#include "nn/sigmoid.h"

namespace farskip::nn {
namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

/// Ids of the k largest entries of each row, largest first; among equals the lower id. [N, E] -> [N, k] int64.
at::Tensor stable_topk(const at::Tensor& scores_NE, int64_t k) {
  const int64_t num_rows = scores_NE.size(0), num_columns = scores_NE.size(1);
  if (!scores_NE.device().is_cpu()) {
    return std::get<1>(at::sort(scores_NE, /*stable=*/true, /*dim=*/-1, /*descending=*/true))
        .narrow(-1, 0, k)
        .contiguous();
  }
  const at::Tensor dense_NE = scores_NE.contiguous();
  const at::Tensor ids_NK = at::empty({num_rows, k}, scores_NE.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(scores_NE.scalar_type(), "stable_topk", [&] {
    const scalar_t* scores = dense_NE.const_data_ptr<scalar_t>();
    int64_t* ids = ids_NK.data_ptr<int64_t>();
    at::parallel_for(0, num_rows, 64, [&](int64_t begin, int64_t end) {
      std::vector<char> taken(num_columns);
      for (int64_t n = begin; n < end; ++n) {
        const scalar_t* row = scores + n * num_columns;
        std::fill(taken.begin(), taken.end(), 0);
        for (int64_t j = 0; j < k; ++j) {
          int64_t best = -1;
          for (int64_t e = 0; e < num_columns; ++e) {
            if (!taken[e] && (best < 0 || row[e] > row[best])) best = e;
          }
          taken[best] = 1;
          ids[n * k + j] = best;
        }
      }
    });
  });
  return ids_NK;
}

/// Sets the scores of experts outside the best groups to minus infinity.
at::Tensor keep_best_groups(const at::Tensor& scores_TE, const RouterConfig& config) {
  const at::Tensor grouped_TGe = scores_TE.unflatten(-1, {config.num_groups, scores_TE.size(-1) / config.num_groups});
  const at::Tensor group_TG =
      config.group_score == GroupScore::max ? grouped_TGe.amax(-1) : std::get<0>(grouped_TGe.topk(2, -1)).sum(-1);
  const at::Tensor dropped_TG = at::ones_like(group_TG, group_TG.options().dtype(at::kBool))
                                    .scatter_(1, stable_topk(group_TG, config.topk_groups), false);
  return grouped_TGe.masked_fill(dropped_TG.unsqueeze(-1), minus_infinity).flatten(1);
}

at::Tensor choose(const at::Tensor& scores_TE, const at::Tensor& correction_bias, const RouterConfig& config,
                  int64_t top_k) {
  at::NoGradGuard no_grad;
  at::Tensor choice = scores_TE.detach();
  if (correction_bias.defined()) choice = choice + correction_bias;
  if (config.group_score != GroupScore::none && config.topk_groups < config.num_groups)
    choice = keep_best_groups(choice, config);
  return stable_topk(choice, top_k);
}

/// Token t visits experts t*K .. t*K + K-1 modulo E: even loads, and distinct experts for each token. [T, K].
at::Tensor balanced_ids(const at::Tensor& scores_TE, int64_t top_k) {
  const auto options = scores_TE.options().dtype(at::kLong).requires_grad(false);
  return at::arange(scores_TE.size(0) * top_k, options).remainder_(scores_TE.size(1)).view({-1, top_k});
}

struct AttachLoss : torch::autograd::Function<AttachLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& p, const at::Tensor& loss, double scale) {
    ctx->saved_data["scale"] = scale;
    ctx->save_for_backward({loss});
    return p.view_as(p);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor loss = ctx->get_saved_variables()[0];
    return {grads[0], at::full_like(loss, ctx->saved_data["scale"].toDouble()), {}};
  }
};

struct AttachGlobalLoss : torch::autograd::Function<AttachGlobalLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& p, const at::Tensor& share_E,
                            const at::Tensor& load_E, const at::Tensor& loss, double alpha, double scale) {
    ctx->save_for_backward({share_E});
    ctx->saved_data["load"] = load_E;  // not a saved variable: others write to both
    ctx->saved_data["loss"] = loss;
    ctx->saved_data["alpha"] = alpha;
    ctx->saved_data["scale"] = scale;
    return p.view_as(p);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor share_E = ctx->get_saved_variables()[0], load_E = ctx->saved_data["load"].toTensor();
    const double alpha = ctx->saved_data["alpha"].toDouble(), num_experts = static_cast<double>(load_E.size(0));
    const at::Tensor f_E = (load_E * num_experts / load_E.sum().clamp_min(1)).to(share_E.options());
    ctx->saved_data["loss"].toTensor().copy_((f_E * share_E).sum() * alpha);
    return {grads[0], f_E * (alpha * ctx->saved_data["scale"].toDouble()), {}, {}, {}, {}};
  }
};

/// [T, E]: of each token's scores the part that every expert has.
at::Tensor score_shares(const Routing& routing) { return routing.scores / (routing.scores.sum(-1, true) + 1e-20); }

}  // namespace

Routing route(const Input& x, const Param& router, const at::Tensor& correction_bias, const RouterConfig& config,
              int64_t top_k, WeightGradQueue* queue, const at::Tensor& given) {
  const auto wide = [](const at::Tensor& t) { return t.to(wide_type(t)); };
  Input input = wide(x.value);
  if (x.again) input.again = [wide, again = x.again] { return wide(again()); };
  const at::Tensor logits_TE = linear(input, router, queue);
  const int64_t num_experts = logits_TE.size(1);
  if (top_k > num_experts) fail("top_k is {}, but there are {} experts: choose at most as many", top_k, num_experts);
  Routing out;
  out.logits = logits_TE;
  out.scores = config.scoring == Scoring::sigmoid ? nn::sigmoid(logits_TE) : at::softmax(logits_TE, -1);
  if (given.defined()) {
    FARSKIP_CHECK(given.dim() == 2 && given.size(0) == logits_TE.size(0) && given.size(1) == top_k,
                  "experts given for other tokens");
    out.ids = given;
  } else if (config.force_balance) {
    out.ids = balanced_ids(out.scores, top_k);
  } else {
    out.ids = choose(config.by_logits ? out.logits : out.scores, correction_bias, config, top_k);
  }
  out.p = out.scores.gather(1, out.ids);
  if (config.normalize) out.p = out.p / (out.p.sum(-1, true) + 1e-20);
  if (config.scaling != 1.0) out.p = out.p * config.scaling;
  return out;
}

at::Tensor dense_weights(const Routing& routing, int64_t num_experts) {
  const at::Tensor p = routing.p.detach();
  return at::zeros({p.size(0), num_experts}, p.options()).scatter_(1, routing.ids, p);
}

at::Tensor expert_load(const at::Tensor& ids, int64_t num_experts) {
  const at::Tensor flat = ids.reshape({-1});
  return at::zeros({num_experts}, flat.options()).scatter_add_(0, flat, at::ones_like(flat));
}

at::Tensor sequence_aux_loss(const Routing& routing, int64_t num_sequences, double alpha) {
  const int64_t num_tokens = routing.scores.size(0), num_experts = routing.scores.size(1), top_k = routing.ids.size(1);
  if (num_tokens == 0) return routing.scores.sum();
  if (num_sequences <= 0 || num_tokens % num_sequences != 0) {
    fail("the auxiliary loss needs sequences of equal length, but {} tokens are {} sequences", num_tokens,
         num_sequences);
  }
  const int64_t length = num_tokens / num_sequences;
  const at::Tensor ids_BN = routing.ids.view({num_sequences, length * top_k});
  const at::Tensor rows_BE =
      at::zeros({num_sequences, num_experts}, routing.scores.options().requires_grad(false))
          .scatter_add_(1, ids_BN, at::ones_like(ids_BN, routing.scores.options().requires_grad(false)));
  const at::Tensor share_BE = score_shares(routing).view({num_sequences, length, num_experts}).mean(1);
  const double f = static_cast<double>(num_experts) / static_cast<double>(top_k * length);
  return (rows_BE * share_BE).sum() * (f * alpha / num_sequences);
}

at::Tensor attach_global_loss(const at::Tensor& p, const Routing& routing, const at::Tensor& load_E,
                              const at::Tensor& loss, double alpha, double scale) {
  if (routing.scores.size(0) == 0) return p;
  return AttachGlobalLoss::apply(p, score_shares(routing).mean(0), load_E, loss, alpha, scale);
}

at::Tensor z_loss(const Routing& routing, double coeff) {
  const int64_t num_tokens = std::max<int64_t>(routing.logits.size(0), 1);
  return at::logsumexp(routing.logits, -1).square().sum() * (coeff / static_cast<double>(num_tokens));
}

at::Tensor attach_loss(const at::Tensor& p, const at::Tensor& loss, double scale) {
  return AttachLoss::apply(p, loss, scale);
}

}  // namespace farskip::nn
