#include "nn/distill_loss.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "check_function.h"
#include "nn/loss.h"

namespace farskip::nn {
namespace {

using ::testing::HasSubstr;

constexpr int64_t rows = 5, vocabulary = 40;

at::Tensor targets() { return at::tensor({int64_t{4}, int64_t{0}, ignored_target, int64_t{39}, int64_t{2}}); }

/// The loss as whole tensors in plain operations: (1 - w) t^2 KL + w CE over the rows that count.
at::Tensor formula(const at::Tensor& student, const at::Tensor& teacher, const DistillLossOptions& o,
                   double denominator) {
  const at::Tensor log_p = (teacher.to(student.scalar_type()) / o.temperature).log_softmax(-1);
  const at::Tensor log_q = (student / o.temperature).log_softmax(-1);
  const at::Tensor counts = targets().ne(ignored_target).to(student.scalar_type());
  const at::Tensor kl = (log_p.exp() * (log_p - log_q)).sum(-1);
  const at::Tensor ce = -student.log_softmax(-1).gather(1, targets().clamp_min(0).unsqueeze(1)).squeeze(1);
  const double w = o.cross_entropy_weight, t = o.temperature;
  return (((1 - w) * t * t * kl + w * ce) * counts).sum() / denominator;
}

TEST(DistillLoss, MatchesFormulaWithItsGradient) {
  for (const DistillLossOptions& options :
       {DistillLossOptions{1, 0}, DistillLossOptions{2.5, 0}, DistillLossOptions{1, 0.3}, DistillLossOptions{0.5, 0.7},
        DistillLossOptions{1, 1}}) {
    const at::Tensor teacher = random({rows, vocabulary}, 7, 2.0);
    check_function(
        {{random({rows, vocabulary}, 1, 2.0)}, {}},
        [&](auto& x, auto&, auto*) {
          const TeacherTargets given{.logits = teacher.to(x[0].scalar_type(), false, /*copy=*/true)};
          return std::vector{distill_loss(x[0], given, targets(), options, 8.0).loss};
        },
        [&](auto& x, auto&) { return std::vector{formula(x[0], teacher, options, 8.0)}; });
  }
}

TEST(DistillLoss, IgnoredRowsCountForNothing) {
  const at::Tensor student = random({rows, vocabulary}, 1).to(at::kFloat).requires_grad_();
  at::Tensor teacher = random({rows, vocabulary}, 2).to(at::kFloat);
  const DistillLoss result = distill_loss(student, {.logits = teacher}, targets(), {}, 4.0);
  result.loss.backward();
  EXPECT_EQ(student.grad()[2].abs().sum().item<double>(), 0);
  EXPECT_NE(student.grad()[1].abs().sum().item<double>(), 0);
  EXPECT_EQ(result.figures[num_counted].item<double>(), 4);
}

TEST(DistillLoss, FiguresAreSumsOverTokens) {
  const at::Tensor student = random({rows, vocabulary}, 1, 2.0), teacher = random({rows, vocabulary}, 2, 2.0);
  for (double temperature : {1.0, 3.0}) {
    const at::Tensor figures =
        distill_loss(student, {.logits = teacher.clone()}, targets(), {temperature, 0.5}, 4.0).figures;
    const auto sum = [&](const at::Tensor& of_row) {
      return of_row.masked_select(targets().ne(ignored_target)).sum().item<double>();
    };
    const at::Tensor log_p = (teacher / temperature).log_softmax(-1), log_q = (student / temperature).log_softmax(-1);
    const auto ce = [&](const at::Tensor& logits) {
      return sum(-logits.log_softmax(-1).gather(1, targets().clamp_min(0).unsqueeze(1)).squeeze(1));
    };
    EXPECT_NEAR(figures[kl_sum].item<double>(), sum((log_p.exp() * (log_p - log_q)).sum(-1)), 1e-9);
    EXPECT_NEAR(figures[cross_entropy_sum].item<double>(), ce(student), 1e-9);
    EXPECT_NEAR(figures[teacher_cross_entropy_sum].item<double>(), ce(teacher), 1e-9);
    EXPECT_EQ(figures[same_top1].item<double>(), sum(student.argmax(-1).eq(teacher.argmax(-1)).to(at::kDouble)));
  }
}

TEST(DistillLoss, NothingToLearnFromOneself) {
  const at::Tensor logits = random({rows, vocabulary}, 1, 5.0).to(at::kFloat).requires_grad_();
  const DistillLoss result = distill_loss(logits, {.logits = logits.detach().clone()}, targets(), {}, 1.0);
  EXPECT_EQ(result.loss.item<double>(), 0);
  EXPECT_EQ(result.figures[same_top1].item<double>(), 4);
  result.loss.backward();
  EXPECT_EQ(logits.grad().abs().max().item<double>(), 0);
}

TEST(DistillLoss, RefusesWhatDoesNotFit) {
  const at::Tensor logits = at::zeros({2, 10}), good = at::zeros({2}, at::kLong);
  EXPECT_THROW(distill_loss(logits, {.logits = at::zeros({2, 11})}, good, {}, 1), Error);
  EXPECT_THROW(distill_loss(logits, {.logits = at::zeros({2, 10})}, good, {}, 0), Error);
  try {
    distill_loss(logits, {.logits = at::zeros({2, 10})}, at::tensor({3, 10}, at::kLong), {}, 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("target id 10 is outside the vocabulary of 10 tokens"));
  }
}

TeacherTargets sparse(const at::Tensor& teacher, int64_t top_k, int64_t samples, uint64_t seed = 1,
                      double temperature = 1) {
  return sparse_targets(teacher, top_k, temperature, samples, seed, at::arange(teacher.size(0), at::kLong));
}

/// The rest as one class: KL between distributions over K + 1 classes.
TEST(SparseDistillLoss, RestIsOneClass) {
  constexpr int64_t top_k = 6;
  for (double temperature : {1.0, 2.0}) {
    const at::Tensor teacher = random({rows, vocabulary}, 3, 2.0);
    const TeacherTargets given = sparse(teacher.to(at::kFloat), top_k, 0, 1, temperature);
    CheckOptions options;
    options.tolerance_fp32 = 1e-4;  // the student's rest is 1 minus what is named
    check_function(
        {{random({rows, vocabulary}, 1, 2.0)}, {}},
        [&](auto& x, auto&, auto*) {
          return std::vector{distill_loss(x[0], given, targets(), {temperature, 0.2}, 4.0).loss};
        },
        [&](auto& x, auto&) {
          const at::Tensor p = given.weights.to(at::kDouble), r = given.rest.to(at::kDouble).unsqueeze(1);
          const at::Tensor q = (x[0] / temperature).softmax(-1).gather(1, given.ids);
          const at::Tensor all_p = at::cat({p, r}, 1), all_q = at::cat({q, 1 - q.sum(-1, true)}, 1);
          const at::Tensor counts = targets().ne(ignored_target).to(at::kDouble);
          const at::Tensor kl = (all_p * (all_p.log() - all_q.log())).sum(-1);
          const at::Tensor ce = -x[0].log_softmax(-1).gather(1, targets().clamp_min(0).unsqueeze(1)).squeeze(1);
          return std::vector{((0.8 * temperature * temperature * kl + 0.2 * ce) * counts).sum() / 4.0};
        },
        options);
  }
}

TEST(SparseDistillLoss, AllTokensAreTheWholeDistribution) {
  const at::Tensor teacher = random({rows, vocabulary}, 3, 2.0), student = random({rows, vocabulary}, 1, 2.0);
  const double whole = distill_loss(student, {.logits = teacher.clone()}, targets(), {}, 4.0).loss.item<double>();
  double before = 0;
  for (int64_t top_k : {int64_t{1}, int64_t{4}, int64_t{16}, vocabulary}) {  // the finer the classes, the larger
    const double kl = distill_loss(student, sparse(teacher, top_k, 0), targets(), {}, 4.0).loss.item<double>();
    EXPECT_GT(kl, before) << top_k;
    EXPECT_LE(kl, whole + 1e-4) << top_k;
    before = kl;
  }
  EXPECT_NEAR(before, whole, 1e-4);
}

/// Drawn from the rest, the loss and its gradient are those of the whole distribution in the mean, which those with a
/// class for the rest are not.
TEST(SparseDistillLoss, DrawsAreUnbiased) {
  constexpr int64_t top_k = 4;
  constexpr int num_draws = 800;
  const at::Tensor teacher = random({rows, vocabulary}, 3, 1.0);
  const auto loss_and_gradient = [&](const TeacherTargets& given) {
    const at::Tensor student = random({rows, vocabulary}, 1, 1.0).requires_grad_();
    const at::Tensor loss = distill_loss(student, given, targets(), {}, 1.0).loss;
    loss.backward();
    return std::pair(loss.item<double>(), student.grad());
  };
  const auto [loss, gradient] = loss_and_gradient({.logits = teacher.clone()});
  double mean_loss = 0;
  at::Tensor mean_gradient = at::zeros_like(gradient);
  for (int draw = 0; draw < num_draws; ++draw) {
    const auto [drawn, its_gradient] = loss_and_gradient(sparse(teacher, top_k, 8, static_cast<uint64_t>(draw)));
    mean_loss += drawn / num_draws;
    mean_gradient += its_gradient / num_draws;
  }
  EXPECT_NEAR(mean_loss, loss, 0.01 * loss);
  EXPECT_LT((mean_gradient - gradient).norm().item<double>(), 0.1 * gradient.norm().item<double>());
  const auto [one_class, coarse_gradient] = loss_and_gradient(sparse(teacher, top_k, 0));
  EXPECT_LT(one_class, 0.9 * loss);
  EXPECT_GT((coarse_gradient - gradient).norm().item<double>(), 0.2 * gradient.norm().item<double>());
}

TEST(SparseDistillLoss, ATokenDrawsTheSameWhereverItIs) {
  const at::Tensor teacher = random({rows, vocabulary}, 3).to(at::kFloat),
                   streams = at::tensor({9, 4, 0, 7, 2}, at::kLong);
  const TeacherTargets all = sparse_targets(teacher, 3, 1, 5, 42, streams);
  const TeacherTargets part = sparse_targets(teacher.narrow(0, 2, 2), 3, 1, 5, 42, streams.narrow(0, 2, 2));
  EXPECT_BITS_EQUAL(all.ids.narrow(0, 2, 2), part.ids);
  EXPECT_BITS_EQUAL(all.weights.narrow(0, 2, 2), part.weights);
  EXPECT_FALSE(at::equal(all.ids, sparse_targets(teacher, 3, 1, 5, 43, streams).ids));
}

TEST(StreamDistance, IsRelativeAndSkipsWhatDoesNotCount) {
  const at::Tensor teacher = random({rows, 16}, 2);
  check_function(
      {{random({rows, 16}, 1)}, {}},
      [&](auto& x, auto&, auto*) {
        return std::vector{stream_distance(x[0], teacher.to(x[0].scalar_type()), targets(), 4.0)};
      },
      [&](auto& x, auto&) {
        const at::Tensor counts = targets().ne(ignored_target).to(at::kDouble);
        return std::vector{((x[0] - teacher).square().sum(-1) / teacher.square().sum(-1) * counts).sum() / 4.0};
      });
}

TEST(RouterAgreement, IsTheKlOfSharesOfScores) {
  const at::Tensor teacher = random({rows, 8}, 2).sigmoid();
  const at::Tensor logits = random({rows, 8}, 1).requires_grad_();
  const at::Tensor loss = router_agreement(teacher, logits.sigmoid(), targets(), 4.0);
  const at::Tensor p = teacher / teacher.sum(-1, true), scores = logits.detach().sigmoid(),
                   q = scores / scores.sum(-1, true);
  const at::Tensor counts = targets().ne(ignored_target).to(at::kDouble);
  EXPECT_NEAR(loss.item<double>(), (((p * (p / q).log()).sum(-1) * counts).sum() / 4.0).item<double>(), 1e-12);
  loss.backward();
  EXPECT_EQ(logits.grad()[2].abs().sum().item<double>(), 0);
  EXPECT_GT(logits.grad()[1].abs().sum().item<double>(), 0);
  EXPECT_NEAR(router_agreement(teacher, teacher, targets(), 4.0).item<double>(), 0, 1e-12);
}

TEST(RouterDrift, CountsSetsNotOrders) {
  const auto ids = [](std::vector<int64_t> values) { return at::tensor(values).view({-1, 2}); };
  const at::Tensor teacher = ids({0, 1, 2, 3, 4, 5, 6, 7}), student = ids({1, 0, 2, 4, 4, 5, 0, 1});
  EXPECT_EQ(num_other_experts(teacher, student, at::tensor({1, 1, 1, 1}, at::kLong)), 2);
  EXPECT_EQ(num_other_experts(teacher, student, at::tensor({int64_t{1}, int64_t{1}, int64_t{1}, ignored_target})), 1);
}

}  // namespace
}  // namespace farskip::nn
