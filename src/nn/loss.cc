#include "nn/loss.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/deferred.h"
#include "nn/for_machine.h"

namespace farskip::nn {
namespace {

/// Per row: log of the sum of exponentials, and that minus the target's logit (0 where the target is ignored).
struct RowLosses {
  at::Tensor lse_T, loss_T;
};

RowLosses row_losses(const at::Tensor& logits_TV, const at::Tensor& targets_T) {
  const auto wide = wide_type(logits_TV);
  if (!logits_TV.device().is_cpu()) {
    const at::Tensor wide_TV = logits_TV.to(wide), lse_T = wide_TV.logsumexp(-1);
    const at::Tensor chosen_T = wide_TV.gather(1, targets_T.clamp_min(0).unsqueeze(1)).squeeze(1);
    return {lse_T, at::where(targets_T.ne(ignored_target), lse_T - chosen_T, 0.0)};
  }
  const int64_t num_rows = logits_TV.size(0), num_columns = logits_TV.size(1);
  const auto options = logits_TV.options().dtype(wide);
  RowLosses out{at::empty({num_rows}, options), at::empty({num_rows}, options)};
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, logits_TV.scalar_type(), "cross_entropy", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* logits = logits_TV.const_data_ptr<scalar_t>();
    const int64_t* targets = targets_T.const_data_ptr<int64_t>();
    wide_t *lse = out.lse_T.data_ptr<wide_t>(), *loss = out.loss_T.data_ptr<wide_t>();
    parallel_rows(num_rows, num_columns, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t t = begin; t < end; ++t) {
        const scalar_t* row = logits + t * num_columns;
        const wide_t largest = lane_max<wide_t>(num_columns, row);
        const wide_t sum = lane_sum<wide_t>(
            num_columns, [&](int64_t i) FARSKIP_INLINE { return exponential(static_cast<wide_t>(row[i]) - largest); });
        lse[t] = largest + std::log(sum);
        loss[t] = targets[t] == ignored_target ? wide_t(0) : lse[t] - static_cast<wide_t>(row[targets[t]]);
      }
    });
  });
  return out;
}

/// (softmax - one-hot) * scale, rounded once to the dtype of the logits; rows whose target is ignored are zero.
at::Tensor loss_gradient(const at::Tensor& logits_TV, const at::Tensor& targets_T, const at::Tensor& lse_T,
                         const at::Tensor& scale) {
  if (!logits_TV.device().is_cpu()) {
    const at::Tensor targets_T1 = targets_T.clamp_min(0).unsqueeze(1);
    at::Tensor d_TV = (logits_TV - lse_T.unsqueeze(1)).exp_();
    d_TV.scatter_(1, targets_T1, d_TV.gather(1, targets_T1) - 1.0);
    const at::Tensor scale_T = targets_T.ne(ignored_target).to(lse_T.scalar_type()) * scale;
    return d_TV.mul_(scale_T.unsqueeze(1)).to(logits_TV.scalar_type());
  }
  const int64_t num_rows = logits_TV.size(0), num_columns = logits_TV.size(1);
  at::Tensor d_TV = at::empty({num_rows, num_columns}, logits_TV.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, logits_TV.scalar_type(), "cross_entropy_backward", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* logits = logits_TV.const_data_ptr<scalar_t>();
    const int64_t* targets = targets_T.const_data_ptr<int64_t>();
    const wide_t *lse = lse_T.const_data_ptr<wide_t>(), factor = scale.item<wide_t>();
    scalar_t* gradient = d_TV.data_ptr<scalar_t>();
    parallel_rows(num_rows, num_columns, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t t = begin; t < end; ++t) {
        const scalar_t* row = logits + t * num_columns;
        scalar_t* out = gradient + t * num_columns;
        if (targets[t] == ignored_target) {
          std::fill(out, out + num_columns, scalar_t(0));
          continue;
        }
        for (int64_t i = 0; i < num_columns; ++i)
          out[i] = static_cast<scalar_t>(exponential(static_cast<wide_t>(row[i]) - lse[t]) * factor);
        const wide_t chosen = exponential(static_cast<wide_t>(row[targets[t]]) - lse[t]);
        out[targets[t]] = static_cast<scalar_t>((chosen - wide_t(1)) * factor);
      }
    });
  });
  return d_TV;
}

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits, const at::Tensor& targets,
                            double denominator) {
    const at::Tensor logits_TV = logits.contiguous(), targets_T = targets.contiguous();
    const RowLosses rows = row_losses(logits_TV, targets_T);
    ctx->save_for_backward({logits_TV, targets_T, rows.lse_T});
    ctx->saved_data["denominator"] = denominator;
    return rows.loss_T.sum() / denominator;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor scale = grads[0] / ctx->saved_data["denominator"].toDouble();
    return {loss_gradient(saved[0], saved[1], saved[2], scale), {}, {}};
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
  return apply<CrossEntropy>(logits, targets, denominator);
}

}  // namespace farskip::nn
