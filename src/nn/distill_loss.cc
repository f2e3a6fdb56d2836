#include "nn/distill_loss.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <algorithm>
#include <limits>

#include "base/philox.h"
#include "nn/deferred.h"
#include "nn/for_machine.h"
#include "nn/loss.h"

namespace farskip::nn {
namespace {

/// What a row's gradient is multiplied by, and how its distributions are made.
template <typename wide_t>
struct Scales {
  wide_t inverse_temperature;
  wide_t kl;             ///< of softmax(s / t) - softmax(t / t)
  wide_t cross_entropy;  ///< of softmax(s) - one-hot; 0: none
  bool plain;            ///< temperature 1
};

template <typename wide_t>
Scales<wide_t> scales_of(const DistillLossOptions& o, double denominator) {
  return {static_cast<wide_t>(1 / o.temperature),
          static_cast<wide_t>((1 - o.cross_entropy_weight) * o.temperature / denominator),
          static_cast<wide_t>(o.cross_entropy_weight / denominator), o.temperature == 1};
}

template <typename wide_t, typename scalar_t>
FARSKIP_INLINE inline wide_t log_sum_exp(int64_t n, const scalar_t* row, wide_t largest, wide_t inverse) {
  return largest * inverse + std::log(lane_sum<wide_t>(n, [=](int64_t i) FARSKIP_INLINE {
           return exponential((static_cast<wide_t>(row[i]) - largest) * inverse);
         }));
}

/// Columns of the figures of a row.
constexpr int64_t num_row_figures = num_counted;

/// Adds the cross-entropy's gradient to a row, and notes the loss.
template <typename wide_t, typename scalar_t>
FARSKIP_INLINE inline void add_cross_entropy(int64_t n, const scalar_t* s, int64_t target, wide_t lse, wide_t scale,
                                             scalar_t* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<scalar_t>(static_cast<wide_t>(out[i]) + scale * exponential(static_cast<wide_t>(s[i]) - lse));
  out[target] = static_cast<scalar_t>(static_cast<wide_t>(out[target]) - scale);
}

/// Of a position without a target. `out` may be null.
template <typename wide_t, typename scalar_t>
void clear_row(int64_t n, wide_t* sums, scalar_t* out) {
  std::fill(sums, sums + num_row_figures, wide_t(0));
  if (out != nullptr) std::fill(out, out + n, scalar_t(0));
}

/// `gradient` may be the teacher's logits, or null.
template <typename scalar_t>
void dense_rows(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& targets_T,
                const DistillLossOptions& options, double denominator, at::Tensor& figures, scalar_t* gradient) {
  using wide_t = at::opmath_type<scalar_t>;
  const int64_t rows = student.size(0), n = student.size(1);
  const scalar_t *students = student.const_data_ptr<scalar_t>(), *teachers = teacher.const_data_ptr<scalar_t>();
  const int64_t* targets = targets_T.const_data_ptr<int64_t>();
  auto* figure = figures.data_ptr<wide_t>();
  const auto scales = scales_of<wide_t>(options, denominator);
  parallel_rows(rows, n, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t row = begin; row < end; ++row) {
      const scalar_t *s = students + row * n, *t = teachers + row * n;
      scalar_t* out = gradient == nullptr ? nullptr : gradient + row * n;
      wide_t* sums = figure + row * num_row_figures;
      const int64_t target = targets[row];
      if (target == ignored_target) {
        clear_row(n, sums, out);
        continue;
      }
      const wide_t inverse = scales.inverse_temperature;
      const auto s_max = lane_max<wide_t>(n, s), t_max = lane_max<wide_t>(n, t);
      const wide_t s_lse = log_sum_exp<wide_t>(n, s, s_max, inverse), t_lse = log_sum_exp<wide_t>(n, t, t_max, inverse);
      const wide_t apart = lane_sum<wide_t>(n, [=](int64_t i) FARSKIP_INLINE {
        const auto value = static_cast<wide_t>(t[i]);
        return exponential(value * inverse - t_lse) * (value - static_cast<wide_t>(s[i]));
      });
      const wide_t s_plain = scales.plain ? s_lse : log_sum_exp<wide_t>(n, s, s_max, wide_t(1));
      const wide_t t_plain = scales.plain ? t_lse : log_sum_exp<wide_t>(n, t, t_max, wide_t(1));
      sums[kl_sum] = apart * inverse - t_lse + s_lse;
      sums[cross_entropy_sum] = s_plain - static_cast<wide_t>(s[target]);
      sums[teacher_cross_entropy_sum] = t_plain - static_cast<wide_t>(t[target]);
      bool same = false;
      for (int64_t i = 0; i < n; ++i) same |= static_cast<wide_t>(s[i]) == s_max && static_cast<wide_t>(t[i]) == t_max;
      sums[same_top1] = same ? wide_t(1) : wide_t(0);
      if (out == nullptr) continue;
      for (int64_t i = 0; i < n; ++i) {
        const wide_t q = exponential(static_cast<wide_t>(s[i]) * inverse - s_lse);
        const wide_t p = exponential(static_cast<wide_t>(t[i]) * inverse - t_lse);
        out[i] = static_cast<scalar_t>(scales.kl * (q - p));
      }
      if (scales.cross_entropy > 0) add_cross_entropy(n, s, target, s_plain, scales.cross_entropy, out);
    }
  });
}

/// Below this a student's rest is not told from rounding.
constexpr double smallest_rest = 1e-6;

template <typename scalar_t>
void sparse_rows(const at::Tensor& student, const TeacherTargets& teacher, const at::Tensor& targets_T,
                 const DistillLossOptions& options, double denominator, at::Tensor& figures, scalar_t* gradient) {
  using wide_t = at::opmath_type<scalar_t>;
  const int64_t rows = student.size(0), n = student.size(1), num_ids = teacher.ids.size(1);
  const scalar_t* students = student.const_data_ptr<scalar_t>();
  const int64_t *targets = targets_T.const_data_ptr<int64_t>(), *all_ids = teacher.ids.const_data_ptr<int64_t>();
  const float *weights = teacher.weights.const_data_ptr<float>(), *rests = teacher.rest.const_data_ptr<float>();
  const float* entropies = teacher.negative_entropy.const_data_ptr<float>();
  auto* figure = figures.data_ptr<wide_t>();
  const auto scales = scales_of<wide_t>(options, denominator);
  parallel_rows(rows, n, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t row = begin; row < end; ++row) {
      const scalar_t* s = students + row * n;
      scalar_t* out = gradient == nullptr ? nullptr : gradient + row * n;
      wide_t* sums = figure + row * num_row_figures;
      const int64_t target = targets[row];
      if (target == ignored_target) {
        clear_row(n, sums, out);
        continue;
      }
      const wide_t inverse = scales.inverse_temperature;
      const auto s_max = lane_max<wide_t>(n, s);
      const wide_t s_lse = log_sum_exp<wide_t>(n, s, s_max, inverse);
      const wide_t s_plain = scales.plain ? s_lse : log_sum_exp<wide_t>(n, s, s_max, wide_t(1));
      const int64_t* ids = all_ids + row * num_ids;
      const float* p = weights + row * num_ids;
      const auto rest = static_cast<wide_t>(rests[row]);
      auto kl = static_cast<wide_t>(entropies[row]);
      wide_t named = 0;  // the student's probability of the tokens that are named
      for (int64_t k = 0; k < num_ids; ++k) {
        const wide_t log_q = static_cast<wide_t>(s[ids[k]]) * inverse - s_lse;
        kl -= static_cast<wide_t>(p[k]) * log_q;
        named += exponential(log_q);
      }
      const wide_t q_rest = std::max(static_cast<wide_t>(smallest_rest), wide_t(1) - named);
      if (rest > 0) kl -= rest * std::log(q_rest);
      sums[kl_sum] = kl;
      sums[cross_entropy_sum] = s_plain - static_cast<wide_t>(s[target]);
      sums[teacher_cross_entropy_sum] = std::numeric_limits<wide_t>::quiet_NaN();
      sums[same_top1] = static_cast<wide_t>(s[ids[0]]) == s_max ? wide_t(1) : wide_t(0);
      if (out == nullptr) continue;
      const wide_t others = rest > 0 ? wide_t(1) - rest / q_rest : wide_t(1);
      for (int64_t i = 0; i < n; ++i)
        out[i] = static_cast<scalar_t>(scales.kl * others * exponential(static_cast<wide_t>(s[i]) * inverse - s_lse));
      for (int64_t k = 0; k < num_ids; ++k) {
        const wide_t q = exponential(static_cast<wide_t>(s[ids[k]]) * inverse - s_lse);
        const wide_t more = q * (wide_t(1) - others) - static_cast<wide_t>(p[k]);
        out[ids[k]] = static_cast<scalar_t>(static_cast<wide_t>(out[ids[k]]) + scales.kl * more);
      }
      if (scales.cross_entropy > 0) add_cross_entropy(n, s, target, s_plain, scales.cross_entropy, out);
    }
  });
}

/// Elsewhere than on a CPU: the same by operations on whole tensors, a part of the rows at a time.
void rows_by_operations(const at::Tensor& student, const TeacherTargets& teacher, const at::Tensor& targets_T,
                        const DistillLossOptions& options, double denominator, at::Tensor& figures,
                        at::Tensor& gradient) {
  constexpr int64_t rows_at_once = 1024;
  const double t = options.temperature, w = options.cross_entropy_weight;
  for (int64_t begin = 0; begin < student.size(0); begin += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, student.size(0) - begin);
    const auto part = [&](const at::Tensor& whole) { return whole.narrow(0, begin, rows); };
    const at::Tensor s = part(student).to(figures.scalar_type()), targets = part(targets_T);
    const at::Tensor counts = targets.ne(ignored_target).to(s.scalar_type());
    const at::Tensor target = targets.clamp_min(0).unsqueeze(1);
    const at::Tensor log_q = at::log_softmax(s / t, -1), plain_q = at::log_softmax(s, -1);
    at::Tensor kl, same, teacher_loss, d;
    if (!teacher.sparse()) {
      const at::Tensor logits = part(teacher.logits).to(s.scalar_type());
      const at::Tensor log_p = at::log_softmax(logits / t, -1), p = log_p.exp();
      kl = (p * (log_p - log_q)).sum(-1);
      same = log_p.argmax(-1).eq(log_q.argmax(-1)).to(s.scalar_type());
      teacher_loss = -at::log_softmax(logits, -1).gather(1, target).squeeze(1);
      d = log_q.exp() - p;
    } else {
      const at::Tensor ids = part(teacher.ids), p = part(teacher.weights).to(s.scalar_type());
      const at::Tensor rest = part(teacher.rest).to(s.scalar_type()), log_named = log_q.gather(1, ids);
      const at::Tensor q_rest = (1 - log_named.exp().sum(-1)).clamp_min(smallest_rest);
      const at::Tensor others = at::where(rest.gt(0), 1 - rest / q_rest, at::ones_like(rest)).unsqueeze(1);
      kl = part(teacher.negative_entropy) - (p * log_named).sum(-1) -
           at::where(rest.gt(0), rest * q_rest.log(), at::zeros_like(rest));
      same = ids.select(1, 0).eq(log_q.argmax(-1)).to(s.scalar_type());
      teacher_loss = at::full_like(kl, std::numeric_limits<double>::quiet_NaN());
      d = (log_q.exp() * others).scatter_add(1, ids, log_named.exp() * (1 - others) - p);
    }
    const at::Tensor loss = -plain_q.gather(1, target).squeeze(1);
    const at::Tensor columns = at::stack({kl, loss, teacher_loss, same}, 1);
    part(figures).copy_(at::where(counts.unsqueeze(1).gt(0), columns, at::zeros_like(columns)));
    if (!gradient.defined()) continue;
    d = d * ((1 - w) * t);
    if (w > 0) d += w * plain_q.exp().scatter_add(1, target, at::full_like(target, -1, s.options()));
    part(gradient).copy_(d * (counts / denominator).unsqueeze(1));
  }
}

/// Figures of the rows [T, num_row_figures] and, where `gradient` is defined, the gradient of the loss.
at::Tensor compute(const at::Tensor& logits_TV, const TeacherTargets& teacher, const at::Tensor& targets_T,
                   const DistillLossOptions& options, double denominator, at::Tensor& gradient) {
  at::Tensor figures = at::empty({logits_TV.size(0), num_row_figures}, logits_TV.options().dtype(wide_type(logits_TV)));
  if (!logits_TV.device().is_cpu()) {
    rows_by_operations(logits_TV, teacher, targets_T, options, denominator, figures, gradient);
    return figures;
  }
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, logits_TV.scalar_type(), "distill_loss", [&] {
    scalar_t* out = gradient.defined() ? gradient.data_ptr<scalar_t>() : nullptr;
    if (teacher.sparse()) {
      sparse_rows<scalar_t>(logits_TV, teacher, targets_T, options, denominator, figures, out);
    } else {
      dense_rows<scalar_t>(logits_TV, teacher.logits, targets_T, options, denominator, figures, out);
    }
  });
  return figures;
}

/// Returns `loss`, whose gradient with respect to `logits` is known already.
struct KnownGradient : torch::autograd::Function<KnownGradient> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& /*logits*/, const at::Tensor& loss,
                            const at::Tensor& gradient) {
    ctx->save_for_backward({gradient});
    return loss.clone();
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor gradient = ctx->get_saved_variables()[0];
    const bool one = grads[0].device().is_cpu() && grads[0].item<double>() == 1;
    return {one ? gradient : (gradient * grads[0]).to(gradient.scalar_type()), {}, {}};
  }
};

void check(const at::Tensor& logits, const TeacherTargets& teacher, const at::Tensor& targets, double denominator) {
  FARSKIP_CHECK(logits.dim() == 2 && targets.dim() == 1 && logits.size(0) == targets.size(0),
                "one target per row of logits");
  if (teacher.sparse()) {
    if (logits.size(0) == 0 && !teacher.ids.defined()) return;
    FARSKIP_CHECK(teacher.ids.dim() == 2 && teacher.ids.size(0) == logits.size(0) && teacher.ids.size(1) > 0);
    FARSKIP_CHECK(teacher.weights.sizes() == teacher.ids.sizes() && teacher.rest.size(0) == logits.size(0) &&
                  teacher.negative_entropy.size(0) == logits.size(0));
  } else if (teacher.logits.sizes() != logits.sizes() || teacher.logits.scalar_type() != logits.scalar_type()) {
    fail("the teacher's logits are {} of {} tokens, the student's {} of {}", teacher.logits.size(0),
         teacher.logits.size(-1), logits.size(0), logits.size(1));
  }
  if (denominator <= 0) fail("the loss is a mean over {} tokens: give a positive number", denominator);
  if (targets.numel() == 0 || !targets.device().is_cpu()) return;
  const at::Tensor wrong = targets.ne(ignored_target).logical_and(targets.lt(0).logical_or(targets.ge(logits.size(1))));
  if (wrong.any().item<bool>()) {
    fail("target id {} is outside the vocabulary of {} tokens", targets.masked_select(wrong)[0].item<int64_t>(),
         logits.size(1));
  }
}

/// Draws `num` tokens from p, of which `total` is the sum, into ids and weights of one row.
void draw(const at::Tensor& p_V, double total, int64_t num, Philox random, int64_t* ids, float* weights) {
  std::vector<double> points;
  for (int64_t i = 0; i < num; ++i) points.push_back(static_cast<double>(random.next() >> 11) * 0x1p-53 * total);
  std::sort(points.begin(), points.end());
  const auto* p = p_V.const_data_ptr<float>();
  double sum = 0;
  int64_t last = 0, next = 0;
  for (int64_t i = 0; i < p_V.size(0) && next < num; ++i) {
    if (p[i] <= 0) continue;
    last = i;
    sum += p[i];
    for (; next < num && points[next] < sum; ++next) ids[next] = i;
  }
  for (; next < num; ++next) ids[next] = last;  // rounding
  std::fill(weights, weights + num, static_cast<float>(total / static_cast<double>(num)));
}

}  // namespace

TeacherTargets sparse_targets(const at::Tensor& logits, int64_t top_k, double temperature, int64_t num_samples,
                              uint64_t seed, const at::Tensor& streams) {
  const at::NoGradGuard no_grad;
  constexpr int64_t rows_at_once = 256;
  const int64_t rows = logits.size(0), vocabulary = logits.size(1);
  if (top_k < 1 || top_k > vocabulary)
    fail("the likeliest {} of {} tokens; give 1 to {}", top_k, vocabulary, vocabulary);
  TeacherTargets out;
  out.ids = at::empty({rows, top_k + num_samples}, at::kLong);
  out.weights = at::empty({rows, top_k + num_samples}, at::kFloat);
  out.rest = at::empty({rows}, at::kFloat);
  out.negative_entropy = at::empty({rows}, at::kFloat);
  for (int64_t begin = 0; begin < rows; begin += rows_at_once) {
    const int64_t num = std::min(rows_at_once, rows - begin);
    const at::Tensor log_p = at::log_softmax(logits.narrow(0, begin, num).to(at::kFloat) / temperature, -1).cpu();
    const auto [top, ids] = log_p.topk(top_k, -1);
    const at::Tensor p = top.exp(), rest = (1 - p.sum(-1, false, at::kDouble)).clamp_min(0);
    out.ids.narrow(0, begin, num).narrow(1, 0, top_k).copy_(ids);
    out.weights.narrow(0, begin, num).narrow(1, 0, top_k).copy_(p);
    if (num_samples == 0) {
      out.rest.narrow(0, begin, num).copy_(rest);
      const at::Tensor of_rest = at::where(rest.gt(0), rest * rest.log(), at::zeros_like(rest));
      out.negative_entropy.narrow(0, begin, num).copy_((p * top).sum(-1) + of_rest);
      continue;
    }
    out.rest.narrow(0, begin, num).zero_();
    out.negative_entropy.narrow(0, begin, num).copy_((log_p.exp() * log_p).sum(-1));
    const at::Tensor others = log_p.exp().scatter_(1, ids, 0.0);
    const at::Tensor totals = others.sum(-1, false, at::kDouble);
    for (int64_t row = 0; row < num; ++row) {
      const int64_t place = (begin + row) * (top_k + num_samples) + top_k;
      draw(others[row], totals[row].item<double>(), num_samples,
           Philox(seed, static_cast<uint64_t>(streams[begin + row].item<int64_t>())),
           out.ids.data_ptr<int64_t>() + place, out.weights.data_ptr<float>() + place);
    }
  }
  return out;
}

DistillLoss distill_loss(const at::Tensor& logits, const TeacherTargets& teacher, const at::Tensor& targets,
                         const DistillLossOptions& options, double denominator) {
  check(logits, teacher, targets, denominator);
  const bool wanted = at::GradMode::is_enabled() && logits.requires_grad();
  DistillLoss result;
  at::Tensor gradient, loss;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor logits_TV = logits.detach().contiguous(), targets_T = targets.contiguous();
    TeacherTargets given = teacher;
    if (given.sparse() && !given.ids.defined()) {  // a batch without rows
      given.ids = at::empty({0, 1}, at::kLong);
      given.weights = at::empty({0, 1}, at::kFloat);
      given.rest = given.negative_entropy = at::empty({0}, at::kFloat);
    }
    if (!given.sparse()) given.logits = given.logits.detach().contiguous();
    if (wanted) gradient = given.sparse() ? at::empty_like(logits_TV) : given.logits;
    const at::Tensor rows = compute(logits_TV, given, targets_T, options, denominator, gradient);
    const double w = options.cross_entropy_weight, t = options.temperature;
    loss = rows.select(1, kl_sum).sum() * ((1 - w) * t * t / denominator);
    if (w > 0) loss = loss + rows.select(1, cross_entropy_sum).sum() * (w / denominator);
    result.figures = at::empty({num_distill_figures}, at::kDouble);
    result.figures.narrow(0, 0, num_row_figures).copy_(rows.sum(0, false, at::kDouble));
    result.figures[num_counted] = targets_T.ne(ignored_target).sum().to(at::kDouble);
  }
  result.loss = wanted ? KnownGradient::apply(logits, loss, gradient) : loss;
  return result;
}

at::Tensor stream_distance(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& targets,
                           double denominator) {
  const at::Tensor s = student.to(wide_type(student)), t = teacher.to(s.scalar_type());
  constexpr double smallest = 1e-20;  // a stream of zeros is far from everything else, but not infinitely
  const at::Tensor counts = targets.ne(ignored_target).to(s.scalar_type());
  const at::Tensor scale = counts / t.square().sum(-1).clamp_min(smallest);
  return ((s - t).square().sum(-1) * scale).sum() / denominator;
}

at::Tensor router_agreement(const at::Tensor& teacher_scores, const at::Tensor& student_scores,
                            const at::Tensor& targets, double denominator) {
  constexpr double smallest = 1e-20;  // a sigmoid may be 0
  const auto log_shares = [](const at::Tensor& scores) {
    const at::Tensor kept = scores.clamp_min(smallest);
    return (kept / kept.sum(-1, true)).log();
  };
  const at::Tensor log_p = log_shares(teacher_scores), log_q = log_shares(student_scores);
  const at::Tensor counts = targets.ne(ignored_target).to(log_q.scalar_type());
  return ((log_p.exp() * (log_p - log_q)).sum(-1) * counts).sum() / denominator;
}

int64_t num_other_experts(const at::Tensor& teacher_ids, const at::Tensor& student_ids, const at::Tensor& targets) {
  const at::Tensor t = std::get<0>(teacher_ids.sort(-1)), s = std::get<0>(student_ids.sort(-1));
  return t.ne(s).any(-1).logical_and(targets.ne(ignored_target)).sum().item<int64_t>();
}

}  // namespace farskip::nn
