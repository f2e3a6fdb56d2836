#include "nn/experts.h"

#include "base/error.h"
#include "check_function.h"

namespace farskip::nn {
namespace {

constexpr int64_t num_experts = 6, hidden_size = 16, width = 12;

/// ids [T, K], skewed; expert 4 gets nothing.
at::Tensor skewed_ids(int64_t num_tokens, int64_t top_k, uint64_t seed) {
  const at::Tensor scores = random({num_tokens, num_experts}, seed) + at::tensor({2.0, 1.0, 0.0, 0.0, -99.0, 0.0});
  return std::get<1>(scores.topk(top_k, -1));
}

RoutePlan local_plan(const at::Tensor& ids) {
  RoutePlan plan = make_route_plan(ids, num_experts, 1);
  complete_route_plan(plan, plan.send_counts);
  return plan;
}

/// Every expert applied to every token, weighed by a dense [T, E] matrix.
at::Tensor dense_moe(const at::Tensor& x, const at::Tensor& weight_TE, const at::Tensor& gate_up,
                     const at::Tensor& down, bool weigh_input = false) {
  at::Tensor y = at::zeros_like(x);
  for (int64_t e = 0; e < num_experts; ++e) {
    const at::Tensor w = weight_TE.select(1, e).unsqueeze(1);
    const at::Tensor h = (weigh_input ? x * w : x).mm(gate_up[e].t());
    const at::Tensor gate = h.slice(1, 0, width), up = h.slice(1, width, 2 * width);
    const at::Tensor out = (gate * gate.sigmoid() * up).mm(down[e].t());
    y = y + (weigh_input ? out : out * w);
  }
  return y;
}

at::Tensor scattered(const at::Tensor& p, const at::Tensor& ids) {
  return at::zeros({p.size(0), num_experts}, at::kDouble).scatter(1, ids, p);
}

const std::vector<at::Tensor> expert_weights() {
  return {random({num_experts, 2 * width, hidden_size}, 3, 0.3), random({num_experts, hidden_size, width}, 4, 0.3)};
}

TEST(RoutePlan, SortsStably) {
  const at::Tensor ids = at::tensor({2, 0, 1, 2, 0, 2}, at::kLong).view({3, 2});
  RoutePlan plan = make_route_plan(ids, 4, 2);
  EXPECT_BITS_EQUAL(plan.order, at::tensor({1, 4, 2, 0, 3, 5}, at::kLong));
  EXPECT_BITS_EQUAL(plan.token, at::tensor({0, 2, 1, 0, 1, 2}, at::kLong));
  EXPECT_BITS_EQUAL(plan.inverse, at::tensor({3, 0, 2, 4, 1, 5}, at::kLong).view({3, 2}));
  EXPECT_BITS_EQUAL(plan.send_counts, at::tensor({2, 1, 3, 0}, at::kLong).view({2, 2}));
  EXPECT_BITS_EQUAL(std::get<1>(at::sort(ids.flatten(), true, 0, false)), plan.order);
}

TEST(RoutePlan, ArrivalToExpertOrder) {
  RoutePlan plan = make_route_plan(at::tensor({2, 0, 1, 2, 0, 2}, at::kLong).view({3, 2}), 4, 2);
  complete_route_plan(plan, at::tensor({2, 1, 0, 3}, at::kLong).view({2, 2}));  // arrives: a a b | b b b
  EXPECT_EQ(plan.send_rows, (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(plan.recv_rows, (std::vector<int64_t>{3, 3}));
  EXPECT_BITS_EQUAL(plan.offsets, at::tensor({0, 2, 6}, at::kLong));
  complete_route_plan(plan, at::tensor({1, 2, 2, 1}, at::kLong).view({2, 2}));  // arrives: a b b | a a b
  EXPECT_BITS_EQUAL(plan.arrival, at::tensor({0, 3, 4, 1, 2, 5}, at::kLong));
  EXPECT_BITS_EQUAL(plan.arrival_inverse, at::tensor({0, 3, 4, 1, 2, 5}, at::kLong));
  EXPECT_BITS_EQUAL(plan.offsets, at::tensor({0, 3, 6}, at::kLong));
}

TEST(RoutePlan, RefusesUnevenExperts) { EXPECT_THROW(make_route_plan(at::zeros({1, 1}, at::kLong), 6, 4), Error); }

TEST(Permute, MatchesGatherAndSum) {
  const at::Tensor ids = skewed_ids(300, 3, 1);
  const RoutePlan plan = local_plan(ids);
  check_function(
      {{random({300, 200}, 2)}, {}}, [&](auto& x, auto&, auto*) { return std::vector{permute(x[0], plan)}; },
      [&](auto& x, auto&) { return std::vector{at::index(x[0], {at::div(plan.order, 3, "floor")})}; });
}

TEST(Permute, WeighsBeforeDispatch) {
  const RoutePlan plan = local_plan(skewed_ids(40, 2, 1));
  CheckOptions options;
  options.wide_inputs = {1};
  check_function(
      {{random({40, 20}, 2), random({40, 2}, 3)}, {}},
      [&](auto& x, auto&, auto*) { return std::vector{permute(x[0], plan, x[1])}; },
      [&](auto& x, auto&) {
        return std::vector{at::index(x[0].unsqueeze(1) * x[1].unsqueeze(2), {plan.token, plan.order % 2})};
      },
      options);
}

TEST(Unpermute, WeighedAndPlainSums) {
  const RoutePlan plan = local_plan(skewed_ids(300, 3, 1));
  CheckOptions options;
  options.wide_inputs = {1};
  auto rows_of = [&](const at::Tensor& rows) { return at::index(rows, {plan.inverse}); };  // [T, K, D]
  check_function(
      {{random({900, 100}, 2), random({300, 3}, 3)}, {}},
      [&](auto& x, auto&, auto*) { return std::vector{unpermute(x[0], x[1], plan)}; },
      [&](auto& x, auto&) { return std::vector{(rows_of(x[0]) * x[1].unsqueeze(2)).sum(1)}; }, options);
  check_function(
      {{random({900, 20}, 2)}, {}}, [&](auto& x, auto&, auto*) { return std::vector{unpermute(x[0], {}, plan)}; },
      [&](auto& x, auto&) { return std::vector{rows_of(x[0]).sum(1)}; });
}

TEST(Unpermute, SumsInOrderOfChoice) {
  const RoutePlan plan = local_plan(at::tensor({5, 0, 3}, at::kLong).view({1, 3}));
  at::Tensor rows = at::empty({3, 1});
  const float values[3] = {1e8f, 1.0f, -1e8f};  // by choice; (1e8 + 1) - 1e8 is 0 in fp32, any other order gives 1
  for (int64_t k = 0; k < 3; ++k) rows[plan.inverse[0][k].item<int64_t>()] = values[k];
  EXPECT_EQ(unpermute(rows, at::ones({1, 3}), plan).item<float>(), 0.0f);
}

TEST(Experts, MatchDenseMixtureWithAnEmptyExpert) {
  const at::Tensor ids = skewed_ids(50, 2, 1);
  ASSERT_EQ(ids.eq(4).sum().item<int64_t>(), 0);
  const RoutePlan plan = local_plan(ids);
  CheckOptions options = with_products();
  options.wide_inputs = {1};
  for (const bool weigh_input : {false, true}) {
    check_function(
        {{random({50, hidden_size}, 1), random({50, 2}, 2).abs()}, expert_weights()},
        [&](auto& x, auto& w, auto* queue) {
          const at::Tensor rows = permute(x[0], plan, weigh_input ? x[1] : at::Tensor());
          const at::Tensor out = experts(rows, plan, w[0], w[1], queue);
          return std::vector{unpermute(out, weigh_input ? at::Tensor() : x[1], plan)};
        },
        [&](auto& x, auto& w) { return std::vector{dense_moe(x[0], scattered(x[1], ids), w[0], w[1], weigh_input)}; },
        options);
  }
}

// Every rank has all tokens and works for its own experts: the parts add up to the whole, one of them empty.
TEST(Unpermute, PartsOfLocalPlansAddUp) {
  const at::Tensor ids = at::tensor(std::vector<int64_t>{0, 3, 1, 0, 3, 2, 0, 1}, at::kLong).view({4, 2});
  const at::Tensor x = at::randn({4, 6}), p = at::rand({4, 2});
  const RoutePlan whole = make_local_plan(ids, 8, 1, 0);
  const at::Tensor expected = unpermute(permute(x, whole), p, whole);
  at::Tensor sum = at::zeros_like(expected);
  int64_t num_rows = 0;
  for (int64_t rank = 0; rank < 4; ++rank) {
    const RoutePlan plan = make_local_plan(ids, 8, 4, rank);
    EXPECT_EQ(plan.offsets.size(0), 3);
    EXPECT_EQ(plan.offsets[2].item<int64_t>(), plan.num_sent());
    const at::Tensor rows = permute(x, plan);
    EXPECT_EQ(rows.size(0), plan.num_sent());
    num_rows += plan.num_sent();
    sum += unpermute(rows, p, plan);
  }
  EXPECT_EQ(num_rows, 8);
  EXPECT_EQ(make_local_plan(ids, 8, 4, 3).num_sent(), 0);
  EXPECT_TRUE(at::allclose(sum, expected, 1e-6, 1e-6));
}

TEST(Experts, NoRowsAtAll) {
  RoutePlan plan = make_route_plan(at::zeros({0, 2}, at::kLong), num_experts, 2);
  complete_route_plan(plan, at::zeros({2, 3}, at::kLong));
  const at::Tensor x = at::zeros({0, hidden_size}).requires_grad_(), p = at::zeros({0, 2}).requires_grad_();
  const Param gate_up{at::ones({3, 2 * width, hidden_size}), 0}, down{at::ones({3, hidden_size, width}), 1};
  WeightGradQueue queue;
  const at::Tensor y = unpermute(experts(permute(x, plan), plan, gate_up, down, &queue), p, plan);
  EXPECT_EQ(y.sizes(), at::IntArrayRef({0, hidden_size}));
  y.sum().backward();
  EXPECT_EQ(x.grad().sizes(), x.sizes());
  int num_grads = 0;
  queue.drain([&](int id, const at::Tensor& grad) {
    ++num_grads;
    EXPECT_BITS_EQUAL(grad, at::zeros_like(id == 0 ? gate_up.value : down.value));
  });
  EXPECT_EQ(num_grads, 2);
}

/// R ranks in one process: what the collectives move is cut and joined by hand.
struct Ranks {
  explicit Ranks(const std::vector<at::Tensor>& ids) {
    const int64_t num = static_cast<int64_t>(ids.size());
    for (const auto& rank_ids : ids) plans.push_back(make_route_plan(rank_ids, num_experts, num));
    std::vector<at::Tensor> sent;
    for (const auto& plan : plans) sent.push_back(plan.send_counts);
    const at::Tensor counts = at::stack(sent);  // [source, destination, E/R]
    for (int64_t r = 0; r < num; ++r) complete_route_plan(plans[r], counts.select(1, r));
  }
  std::vector<at::Tensor> dispatch(const std::vector<at::Tensor>& rows) const { return exchange(rows, true); }
  std::vector<at::Tensor> combine(const std::vector<at::Tensor>& rows) const { return exchange(rows, false); }

  std::vector<RoutePlan> plans;

 private:
  std::vector<at::Tensor> exchange(const std::vector<at::Tensor>& rows, bool forward) const {
    std::vector<std::vector<at::Tensor>> parts;
    for (size_t r = 0; r < rows.size(); ++r) {
      parts.push_back(rows[r].split_with_sizes(forward ? plans[r].send_rows : plans[r].recv_rows));
    }
    std::vector<at::Tensor> out;
    for (size_t to = 0; to < rows.size(); ++to) {
      std::vector<at::Tensor> pieces;
      for (size_t from = 0; from < rows.size(); ++from) pieces.push_back(parts[from][to]);
      out.push_back(at::cat(pieces));
    }
    return out;
  }
};

TEST(Experts, ThreeRanksEqualTheDenseMixture) {
  // Rank 2 has no tokens; nobody chooses expert 4. Parameters 2r and 2r+1 are the experts of rank r.
  const std::vector<at::Tensor> ids = {skewed_ids(30, 2, 1), skewed_ids(17, 2, 2), at::zeros({0, 2}, at::kLong)};
  const Ranks ranks(ids);
  const auto gate_up_R = expert_weights()[0].chunk(3), down_R = expert_weights()[1].chunk(3);
  std::vector<at::Tensor> params;
  for (size_t r = 0; r < 3; ++r) params.insert(params.end(), {gate_up_R[r], down_R[r]});
  CheckOptions options = with_products();
  options.wide_inputs = {1};
  check_function(
      {{random({47, hidden_size}, 1), random({47, 2}, 2).abs()}, params},
      [&](auto& x, auto& w, auto* queue) {
        const auto x_R = x[0].split_with_sizes({30, 17, 0}), p_R = x[1].split_with_sizes({30, 17, 0});
        std::vector<at::Tensor> rows, y;
        for (size_t r = 0; r < 3; ++r) rows.push_back(permute(x_R[r], ranks.plans[r]));
        rows = ranks.dispatch(rows);
        for (size_t r = 0; r < 3; ++r) rows[r] = experts(rows[r], ranks.plans[r], w[2 * r], w[2 * r + 1], queue);
        rows = ranks.combine(rows);
        for (size_t r = 0; r < 3; ++r) y.push_back(unpermute(rows[r], p_R[r], ranks.plans[r]));
        return std::vector{at::cat(y)};
      },
      [&](auto& x, auto& w) {
        const at::Tensor gate_up = at::cat({w[0], w[2], w[4]}), down = at::cat({w[1], w[3], w[5]});
        return std::vector{dense_moe(x[0], scattered(x[1], at::cat(ids)), gate_up, down)};
      },
      options);
}

}  // namespace
}  // namespace farskip::nn
