#pragma once
// The loss of distillation: how far a student's predictions are from its teacher's. T tokens, V vocabulary, K of a
// token's likeliest successors.

#include <ATen/core/Tensor.h>

namespace farskip::nn {

/// What a teacher says about each token at some temperature: either all logits, or weights of a few tokens.
struct TeacherTargets {
  at::Tensor logits = {};            ///< [T, V], of the student's dtype; undefined: the others are
  at::Tensor ids = {};               ///< [T, K] int64, distinct where there is a rest
  at::Tensor weights = {};           ///< [T, K] fp32
  at::Tensor rest = {};              ///< [T] fp32: what the weights lack to 1, the probability of all other tokens
  at::Tensor negative_entropy = {};  ///< [T] fp32: sum of p log p, of the weights and the rest or of all tokens
  bool sparse() const { return !logits.defined(); }
};

/// The K likeliest tokens of each row at `temperature`, and what is left. Two ways to treat that:
///   num_samples = 0  it is one more class: the loss sees how much is left, not of what, and is at most the full KL;
///   num_samples = N  N tokens are drawn from it, each with weight rest / N: then the loss and its gradient are, in the
///                    mean over draws, those of the full KL (arXiv 2503.16870). Row t draws from stream streams[t] of
///                    `seed`, so that a token draws the same on any rank.
/// Rows are taken in parts, so that beside the logits [T, V] there is little. Not differentiable.
TeacherTargets sparse_targets(const at::Tensor& logits, int64_t top_k, double temperature, int64_t num_samples,
                              uint64_t seed, const at::Tensor& streams);

struct DistillLossOptions {
  double temperature = 1;           ///< t: both distributions are softmax(logits / t)
  double cross_entropy_weight = 0;  ///< w
};

/// Sums over the tokens that count.
enum DistillFigure {
  kl_sum,                     ///< KL(teacher || student) at the temperature, nats
  cross_entropy_sum,          ///< the student's, at temperature 1
  teacher_cross_entropy_sum,  ///< NaN where targets are sparse
  same_top1,                  ///< tokens with the same likeliest successor
  num_counted,
  num_distill_figures,
};

struct DistillLoss {
  at::Tensor loss;     ///< fp32 scalar: the sum over tokens of (1 - w) t^2 KL + w * cross-entropy, over denominator
  at::Tensor figures;  ///< fp64 [num_distill_figures], not differentiable
};

/// logits [T, V] of the student, targets [T] int64 (nn::ignored_target: the token counts for nothing). Forward computes
/// the gradient too, where one is wanted, and writes it over `teacher.logits`, which nobody may read afterwards: so
/// there are never more than two tensors [T, V], and every sum is within a row. Throws Error for shapes that do not
/// fit, a denominator that is not positive, and a target outside [0, V).
DistillLoss distill_loss(const at::Tensor& logits, const TeacherTargets& teacher, const at::Tensor& targets,
                         const DistillLossOptions& options, double denominator);

/// How far a student's hidden states are from its teacher's: the sum over the tokens that count of |s - t|^2 / |t|^2,
/// over `denominator`. Both [T, D]; the gradient is the student's. An fp32 scalar (fp64 for fp64).
at::Tensor stream_distance(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& targets,
                           double denominator);

/// How far a student's gate is from its teacher's: the sum over the tokens that count of KL(teacher || student) between
/// the experts' shares of the scores [T, E], over `denominator`. The gradient is the student's.
at::Tensor router_agreement(const at::Tensor& teacher_scores, const at::Tensor& student_scores,
                            const at::Tensor& targets, double denominator);

/// Tokens whose set of K experts is another one: ids [T, K] of both, in any order. Tokens that do not count are left
/// out.
int64_t num_other_experts(const at::Tensor& teacher_ids, const at::Tensor& student_ids, const at::Tensor& targets);

}  // namespace farskip::nn
