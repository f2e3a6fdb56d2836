#include "nn/router.h"

#include "base/error.h"
#include "check_function.h"

namespace farskip::nn {
namespace {

/// Routes one token whose logits are given: the router is the identity.
Routing route_logits(const std::vector<double>& logits, const RouterConfig& config, int64_t top_k,
                     const std::vector<double>& bias = {}, const at::Tensor& given = {}) {
  const int64_t num = static_cast<int64_t>(logits.size());
  const at::Tensor x = at::tensor(logits, at::kDouble).to(at::kFloat).view({1, num});
  const at::Tensor correction = bias.empty() ? at::Tensor() : at::tensor(bias, at::kDouble).to(at::kFloat);
  return route(x, {at::eye(num), 0}, correction, config, top_k, nullptr, given);
}

std::vector<int64_t> ids(const Routing& routing) {
  const auto row = routing.ids[0].contiguous();
  return {row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.numel()};
}
double p(const Routing& routing, int64_t k) { return routing.p[0][k].item<double>(); }
double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

TEST(Router, SoftmaxNotNormalized) {  // OLMoE, DeepSeek-V2-Lite
  const Routing routing = route_logits({0, std::log(2.0), std::log(4.0), 0}, {}, 2);
  EXPECT_EQ(ids(routing), (std::vector<int64_t>{2, 1}));
  EXPECT_NEAR(p(routing, 0), 4.0 / 8, 1e-6);
  EXPECT_NEAR(p(routing, 1), 2.0 / 8, 1e-6);
}

TEST(Router, SoftmaxNormalizedAndScaled) {  // Mixtral, Qwen3
  RouterConfig config;
  config.normalize = true;
  config.scaling = 3.0;
  const Routing routing = route_logits({0, std::log(2.0), std::log(4.0), 0}, config, 2);
  EXPECT_NEAR(p(routing, 0), 3.0 * 4 / 6, 1e-6);
  EXPECT_NEAR(p(routing, 1), 3.0 * 2 / 6, 1e-6);
}

TEST(Router, BiasSelectsButDoesNotWeigh) {  // DeepSeek-V3, Moonlight
  RouterConfig config;
  config.scoring = Scoring::sigmoid;
  config.correction_bias = true;
  config.normalize = true;
  config.scaling = 2.446;
  const Routing routing = route_logits({3, 2, 1, 0}, config, 2, {0, 0, 0, 5});
  EXPECT_EQ(ids(routing), (std::vector<int64_t>{3, 0}));
  const double sum = sigmoid(0) + sigmoid(3);
  EXPECT_NEAR(p(routing, 0), 2.446 * sigmoid(0) / sum, 1e-6);
  EXPECT_NEAR(p(routing, 1), 2.446 * sigmoid(3) / sum, 1e-6);
}

TEST(Router, GroupsByTheSumOfTheirTwoBest) {
  RouterConfig config;
  config.scoring = Scoring::sigmoid;
  config.num_groups = 3;
  config.topk_groups = 1;
  config.group_score = GroupScore::top2_sum;
  // Group 0 holds the best expert, group 1 the best pair.
  EXPECT_EQ(ids(route_logits({3, -9, -9, 1.5, 1.2, -9, 1, 1, 1}, config, 2)), (std::vector<int64_t>{3, 4}));
  config.group_score = GroupScore::max;
  EXPECT_EQ(ids(route_logits({3, -9, -8, 1.5, 1.2, -9, 1, 1, 1}, config, 2)), (std::vector<int64_t>{0, 2}));
  config.topk_groups = 2;
  EXPECT_EQ(ids(route_logits({3, -9, -8, 1.5, 1.2, -9, 1.3, 1, 1}, config, 3)), (std::vector<int64_t>{0, 3, 4}));
}

TEST(Router, NegativeBiasedScoresStayInsideTheirGroup) {
  RouterConfig config;
  config.scoring = Scoring::sigmoid;
  config.num_groups = 2;
  config.topk_groups = 1;
  config.group_score = GroupScore::top2_sum;
  // All of group 1 is biased below zero, yet it is the better group: nothing of group 0 may be chosen.
  const Routing routing = route_logits({0, 0, 0, 0}, config, 2, {-3, -3, -1, -2});
  EXPECT_EQ(ids(routing), (std::vector<int64_t>{2, 3}));
}

TEST(Router, TopOneSigmoid) {  // Llama-4
  RouterConfig config;
  config.scoring = Scoring::sigmoid;
  const Routing routing = route_logits({-1, 0.5, 0.25}, config, 1);
  EXPECT_EQ(ids(routing), (std::vector<int64_t>{1}));
  EXPECT_NEAR(p(routing, 0), sigmoid(0.5), 1e-6);
}

TEST(Router, LogitsDecideWhereSigmoidsSaturate) {  // Llama-4
  RouterConfig config;
  config.scoring = Scoring::sigmoid;
  EXPECT_EQ(ids(route_logits({20, 25, 30}, config, 1)), (std::vector<int64_t>{0})) << "all of them are 1 in fp32";
  config.by_logits = true;
  const Routing routing = route_logits({20, 25, 30}, config, 2);
  EXPECT_EQ(ids(routing), (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(p(routing, 0), 1);
}

TEST(Router, GivenExpertsAreWeighedByTheirOwnScores) {
  const Routing routing = route_logits({1, 2, 3, 0}, {}, 2, {}, at::tensor({3, 0}, at::kLong).view({1, 2}));
  EXPECT_EQ(ids(routing), (std::vector<int64_t>{3, 0}));
  const double sum = std::exp(1) + std::exp(2) + std::exp(3) + 1;
  EXPECT_NEAR(p(routing, 0), 1 / sum, 1e-6);
  EXPECT_NEAR(p(routing, 1), std::exp(1) / sum, 1e-6);
}

TEST(Router, TiesGoToTheLowerId) {
  EXPECT_EQ(ids(route_logits({1, 2, 2, 1, 2}, {}, 4)), (std::vector<int64_t>{1, 2, 4, 0}));
}

TEST(Router, RefusesMoreThanThereAre) { EXPECT_THROW(route_logits({1, 2}, {}, 3), Error); }

TEST(Router, GradientsMatchFormula) {
  RouterConfig config;
  config.scoring = Scoring::sigmoid;
  config.normalize = true;
  config.scaling = 2.5;
  const at::Tensor bias = random({12}, 5, 0.1);
  CheckOptions options = with_products();
  options.wide_params = {0};
  check_function(
      {{random({60, 16}, 1)}, {random({12, 16}, 2, 0.3)}},
      [&](auto& x, auto& w, auto* queue) {
        const Routing routing = route(x[0], w[0], bias.to(w[0].value.scalar_type()), config, 3, queue);
        return std::vector{routing.p};
      },
      [&](auto& x, auto& w) {
        const at::Tensor scores = x[0].mm(w[0].t()).sigmoid();
        const at::Tensor chosen = std::get<1>((scores + bias.to(at::kFloat).to(at::kDouble)).topk(3, -1));
        const at::Tensor p = scores.gather(1, chosen);
        return std::vector{2.5 * p / p.sum(-1, true)};
      },
      options);
}

TEST(Router, LogitsAreFp32ForBf16Inputs) {
  const at::Tensor x = random({8, 16}, 1).to(at::kBFloat16), w = random({6, 16}, 2).to(at::kFloat);
  const Routing routing = route(x, {w, 0}, {}, {}, 2, nullptr);
  EXPECT_EQ(routing.p.scalar_type(), at::kFloat);
  EXPECT_LE(relative_difference(routing.scores, x.to(at::kDouble).mm(w.to(at::kDouble).t()).softmax(-1)), 1e-6);
}

TEST(Router, DenseWeightsAndLoad) {
  const Routing routing =
      route(random({20, 8}, 1).to(at::kFloat), {random({5, 8}, 2).to(at::kFloat), 0}, {}, {}, 2, nullptr);
  const at::Tensor dense = dense_weights(routing, 5), load = expert_load(routing.ids, 5);
  EXPECT_LE(relative_difference(dense.sum(-1), routing.p.sum(-1)), 1e-6);
  EXPECT_BITS_EQUAL(load, dense.ne(0).sum(0));
  EXPECT_EQ(load.sum().item<int64_t>(), 40);
}

TEST(AuxLoss, IsAlphaWhenBalancedAndGrowsWhenNot) {
  Routing routing;
  routing.scores = at::full({4, 4}, 0.25);
  routing.ids = at::tensor({0, 1, 2, 3, 0, 1, 2, 3}, at::kLong).view({4, 2});
  EXPECT_NEAR(sequence_aux_loss(routing, 1, 0.01).item<double>(), 0.01, 1e-8);
  // Both tokens of each sequence choose experts 0 and 1, with half of all scores on expert 0: f = (2, 2, 0, 0).
  routing.scores = at::tensor({3.0, 1.0, 1.0, 1.0}).expand({4, 4});
  routing.ids = at::tensor({0, 1}, at::kLong).expand({4, 2}).contiguous();
  EXPECT_NEAR(sequence_aux_loss(routing, 2, 0.01).item<double>(), 0.01 * 2 * (0.5 + 1.0 / 6), 1e-7);
  EXPECT_THROW(sequence_aux_loss(routing, 3, 0.01), Error);
}

TEST(AuxLoss, CountsEachSequenceByItself) {
  Routing routing;
  routing.scores = at::tensor({1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0}).view({4, 2});
  routing.ids = at::tensor({0, 0, 1, 1}, at::kLong).view({4, 1});
  EXPECT_NEAR(sequence_aux_loss(routing, 1, 1.0).item<double>(), 1.0, 1e-6);  // balanced over all four tokens
  EXPECT_NEAR(sequence_aux_loss(routing, 2, 1.0).item<double>(), 2.0, 1e-6);  // but not within a sequence
}

// Megatron's switch_load_balancing_loss_func, written plainly.
TEST(AuxLoss, OverAllTokensIsTheSwitchLoss) {
  const at::Tensor x = random({12, 8}, 1), router = random({5, 8}, 2);
  const Routing routing = route(x, {router, 0}, {}, {}, 2, nullptr);
  const at::Tensor counts = expert_load(routing.ids, 5).to(at::kDouble);
  const double expected = (routing.scores.sum(0) * counts).sum().item<double>() * 5 * 0.3 / (2.0 * 12 * 12);
  EXPECT_NEAR(sequence_aux_loss(routing, 1, 0.3).item<double>(), expected, 1e-9);
}

TEST(AuxLoss, WithoutTokensThereIsNone) {
  const at::Tensor x = at::zeros({0, 8}).requires_grad_();
  const Routing routing = route(x, {random({5, 8}, 2).to(at::kFloat), 0}, {}, {}, 2, nullptr);
  const at::Tensor loss = sequence_aux_loss(routing, 0, 0.3) + z_loss(routing, 0.3);
  EXPECT_EQ(loss.item<double>(), 0);
  attach_loss(routing.p, loss, 1).sum().backward();
  EXPECT_EQ(x.grad().numel(), 0);
}

TEST(ZLoss, IsTheMeanSquareOfLogsumexp) {
  Routing routing;
  routing.logits = at::tensor({0.0, 0.0, std::log(3.0), 0.0}, at::kDouble).view({2, 2});
  const double first = std::log(2.0), second = std::log(4.0);
  EXPECT_NEAR(z_loss(routing, 0.5).item<double>(), 0.5 * (first * first + second * second) / 2, 1e-12);
}

TEST(ZLoss, GradientIsTheDifferenceQuotient) {
  Routing routing;
  routing.logits = (2 * random({6, 4}, 3)).requires_grad_();
  z_loss(routing, 0.7).backward();
  constexpr double h = 1e-5;
  for (int64_t i = 0; i < routing.logits.numel(); ++i) {
    const auto shifted = [&](double by) {
      Routing other;
      other.logits = routing.logits.detach().clone();
      other.logits.view(-1)[i] += by;
      return z_loss(other, 0.7).item<double>();
    };
    EXPECT_NEAR(routing.logits.grad().view(-1)[i].item<double>(), (shifted(h) - shifted(-h)) / (2 * h), 1e-8);
  }
}

TEST(Router, ForcedBalanceLoadsEveryExpertAlike) {
  RouterConfig config;
  config.force_balance = true;
  const Routing routing =
      route(random({20, 8}, 1).to(at::kFloat), {random({8, 8}, 2).to(at::kFloat), 0}, {}, config, 2, nullptr);
  EXPECT_BITS_EQUAL(expert_load(routing.ids, 8), at::full({8}, 5, at::kLong));
  EXPECT_BITS_EQUAL(routing.p, routing.scores.gather(1, routing.ids));
  for (int64_t t = 0; t < 20; ++t) EXPECT_NE(routing.ids[t][0].item<int64_t>(), routing.ids[t][1].item<int64_t>());
}

TEST(AuxLoss, AttachedLossTrainsTheRouterThroughP) {
  auto scores_grad = [](double scale, bool as_root) {
    const at::Tensor logits = random({6, 4}, 1).requires_grad_();
    Routing routing;
    routing.scores = logits.softmax(-1);
    routing.ids = at::tensor({0, 1, 0, 2, 0, 3, 1, 2, 0, 1, 0, 2}, at::kLong).view({6, 2});
    const at::Tensor p = routing.scores.gather(1, routing.ids);
    const at::Tensor aux = sequence_aux_loss(routing, 2, 0.5);
    if (as_root) {
      (p.square().sum() + scale * aux).backward();
    } else {
      const at::Tensor attached = attach_loss(p, aux, scale);
      EXPECT_BITS_EQUAL(attached, p);
      attached.square().sum().backward();
    }
    return logits.grad();
  };
  EXPECT_LE(relative_difference(scores_grad(0.3, false), scores_grad(0.3, true)), 1e-12);
  EXPECT_GE(relative_difference(scores_grad(0.0, false), scores_grad(0.3, true)), 1e-3);
}

TEST(GlobalAuxLoss, TrainsTheRouterByALoadThatIsKnownInBackwardOnly) {
  const at::Tensor counts = at::tensor({9, 1, 0, 14}, at::kDouble);
  auto run = [&](bool as_root, at::Tensor* loss) {
    const at::Tensor logits = random({6, 4}, 1).requires_grad_();
    Routing routing;
    routing.scores = logits.sigmoid();
    routing.ids = at::zeros({6, 2}, at::kLong);  // where these tokens go is no matter
    const at::Tensor p = routing.scores.narrow(1, 0, 2);
    if (as_root) {
      const at::Tensor share = (routing.scores / routing.scores.sum(-1, true)).mean(0);
      *loss = 0.5 * (4 * counts / 24 * share).sum();
      (p.square().sum() + 0.3 * *loss).backward();
    } else {
      const at::Tensor load = at::zeros({4}, at::kDouble);
      *loss = at::zeros({}, at::kDouble);
      const at::Tensor attached = attach_global_loss(p, routing, load, *loss, 0.5, 0.3);
      EXPECT_BITS_EQUAL(attached, p);
      load.copy_(counts);
      attached.square().sum().backward();
    }
    return logits.grad();
  };
  at::Tensor attached_loss, root_loss;
  const at::Tensor attached = run(false, &attached_loss), root = run(true, &root_loss);
  EXPECT_LE(relative_difference(attached, root), 1e-12);
  EXPECT_NEAR(attached_loss.item<double>(), root_loss.item<double>(), 1e-12);
}

TEST(GlobalAuxLoss, WithoutTokensThereIsNone) {
  const at::Tensor x = at::zeros({0, 8}).requires_grad_();
  const Routing routing = route(x, {random({5, 8}, 2).to(at::kFloat), 0}, {}, {}, 2, nullptr);
  const at::Tensor loss = at::zeros({});
  attach_global_loss(routing.p, routing, at::ones({5}, at::kDouble), loss, 0.3, 1).sum().backward();
  EXPECT_EQ(loss.item<double>(), 0);
}

}  // namespace
}  // namespace farskip::nn
