#include "nn/loss.h"

#include <ATen/ATen.h>

#include "nn/deferred.h"

namespace farskip::nn {
namespace {

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits_TV, const at::Tensor& targets_T,
                            double denominator) {
    const at::Tensor wide_TV = logits_TV.to(wide_type(logits_TV));
    const at::Tensor lse_T = wide_TV.logsumexp(-1);
    const at::Tensor counted_T = targets_T.ne(ignored_target);
    const at::Tensor chosen_T = wide_TV.gather(1, targets_T.clamp_min(0).unsqueeze(1)).squeeze(1);
    ctx->save_for_backward({logits_TV, targets_T, lse_T});
    ctx->saved_data["denominator"] = denominator;
    return at::where(counted_T, lse_T - chosen_T, 0.0).sum() / denominator;
  }

  /// (softmax - one-hot) * dloss / denominator, in place in one fp32 buffer.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &logits_TV = saved[0], &targets_T = saved[1], &lse_T = saved[2];
    const at::Tensor targets_T1 = targets_T.clamp_min(0).unsqueeze(1);
    at::Tensor d_TV = (logits_TV - lse_T.unsqueeze(1)).exp_();
    d_TV.scatter_(1, targets_T1, d_TV.gather(1, targets_T1) - 1.0);
    const at::Tensor scale_T =
        targets_T.ne(ignored_target).to(lse_T.scalar_type()) * (grads[0] / ctx->saved_data["denominator"].toDouble());
    return {d_TV.mul_(scale_T.unsqueeze(1)).to(logits_TV.scalar_type()), {}, {}};
  }
};

}  // namespace

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets, double denominator) {
  FARSKIP_CHECK(logits.dim() == 2 && targets.dim() == 1 && logits.size(0) == targets.size(0),
                "one target per row of logits");
  if (denominator <= 0) fail("the loss is a mean over {} tokens: give a positive number", denominator);
  if (targets.numel() > 0 && targets.device().is_cpu()) {
    const at::Tensor wrong =
        targets.ne(ignored_target).logical_and(targets.lt(0).logical_or(targets.ge(logits.size(1))));
    if (wrong.any().item<bool>()) {
      fail("target id {} is outside the vocabulary of {} tokens", targets.masked_select(wrong)[0].item<int64_t>(),
           logits.size(1));
    }
  }
  return CrossEntropy::apply(logits, targets, denominator);
}

}  // namespace farskip::nn
