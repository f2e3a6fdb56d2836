// Any valid schedule leaves the same bits as the reference schedule: losses, gradients, statistics and the weights
// after several optimizer steps.

#include <gtest/gtest.h>

#include <set>

#include "layer/training_graph.h"
#include "tests/equivalence/trial.h"

namespace farskip::test {
namespace {

std::vector<Trial> matrix() {
  std::vector<Trial> trials;
  auto add = [&](Trial trial) { trials.push_back(std::move(trial)); };
  const Layout two{.ep = 2}, four{.ep = 4}, square{.ep = 2, .dp = 2};
  add({.num_random = 200});
  add({.bf16 = true, .num_random = 40});
  add({.connectivity = "standard", .num_random = 40});
  add({.connectivity = "standard", .bf16 = true});
  for (const char* connectivity : {"attn-only", "mlp-only", "last=2", "layers=1-2", "skip=2,1,0"}) {
    add({.connectivity = connectivity});
    add({.connectivity = connectivity, .num_microbatches = 1, .bf16 = true, .num_random = 10});
  }
  for (const char* model : {"instella", "v2", "qwen3", "llama4"}) {
    add({.model = model});
    add({.model = model, .connectivity = "standard", .num_random = 10});
    add({.model = model, .connectivity = "skip=2,1,0", .bf16 = true, .num_random = 10});
  }
  for (const Layout& layout : {Layout{}, four, square}) {
    add({.layout = layout});
    add({.layout = layout, .num_microbatches = 1, .bf16 = true, .num_random = 10});
  }
  add({.num_microbatches = 1, .num_random = 40});
  for (const Layout& layout : {two, four, square}) {
    add({.layout = layout, .gloo = true, .num_random = 10});
    add({.layout = layout, .num_microbatches = 1, .bf16 = true, .gloo = true, .num_random = 5});
  }
  add({.connectivity = "standard", .gloo = true, .num_random = 5});
  for (const Layout& layout : {two, Layout{.dp = 2}, square}) {
    add({.layout = layout, .sharded = true});
    add({.layout = layout, .num_microbatches = 1, .bf16 = true, .sharded = true, .num_random = 10});
    add({.layout = layout, .recompute = "full", .num_random = 10});
  }
  for (const char* recompute : {"full", "full 2", "core_attn", "core_attn layernorm moe_act"}) {
    add({.connectivity = "standard", .recompute = recompute, .num_random = 10});
    add({.model = "v2", .bf16 = true, .sharded = true, .recompute = recompute, .num_random = 10});
    add({.model = "qwen3", .num_microbatches = 1, .recompute = recompute});
    add({.model = "llama4", .recompute = recompute, .num_random = 10});
  }
  add({.model = "instella", .layout = two, .gloo = true, .sharded = true, .recompute = "full", .num_random = 5});
  for (const char* recompute : {"full 2", "core_attn layernorm moe_act"}) {
    add({.sharded = true,
         .recompute = recompute,
         .num_random = 10,
         .packed = true,
         .balancing = LoadBalancing::global_aux_loss});
  }
  for (const Skew skew : {Skew::crowded, Skew::idle, Skew::leave}) {
    add({.skew = skew});
    add({.layout = four, .num_microbatches = 1, .bf16 = true, .skew = skew, .num_random = 10});
    add({.gloo = true, .skew = skew, .num_random = 5});
    add({.connectivity = "standard", .skew = skew, .num_random = 10});
  }
  for (const char* model : {"moonlight", "v2", "qwen3", "llama4"}) {
    add({.model = model, .num_random = 10, .packed = true});
    add({.model = model, .num_microbatches = 3, .num_random = 20, .balancing = LoadBalancing::global_aux_loss});
  }
  add({.connectivity = "standard", .layout = square, .bf16 = true, .num_random = 10, .packed = true});
  add({.layout = square,
       .bf16 = true,
       .gloo = true,
       .num_random = 10,
       .packed = true,
       .balancing = LoadBalancing::global_aux_loss});
  add({.layout = {}, .num_random = 10, .balancing = LoadBalancing::global_aux_loss});
  return trials;
}

class Schedules : public ::testing::TestWithParam<Trial> {};

/// That the router did what the trial asks for.
void check_load(const Trial& trial, const Outcome& outcome) {
  const int64_t tokens = 8 * trial.num_microbatches * trial.layout.world();
  for (const auto& load : outcome.load) {
    if (load.empty()) continue;
    if (trial.skew == Skew::crowded) {
      EXPECT_EQ(load[0], tokens);
    }
    if (trial.skew == Skew::idle) {
      EXPECT_EQ(load[1], 0);
    }
    if (trial.skew != Skew::leave) continue;
    const size_t kept = load.size() / trial.layout.ep * (trial.layout.ep - 1);
    for (size_t e = 0; e < kept; ++e) EXPECT_EQ(load[e], 0) << "expert " << e;
  }
}

TEST_P(Schedules, LeaveTheBitsOfTheReference) {
  const Trial& trial = GetParam();
  std::vector<std::string> names = {"reference", "paper", "search", "async", "1f1b", "two-batch"};
  std::vector<Order> orders;
  for (const auto& name : names) orders.push_back(named_order(name));
  for (int seed = 1; seed <= trial.num_random; ++seed) {
    names.push_back(fmt::format("random {}", seed));
    orders.push_back(random_order(seed));
  }
  const auto outcomes = run_orders(trial, orders);

  EXPECT_GT(outcomes[0].loss, 0.5);
  check_load(trial, outcomes[0]);
  std::set<uint64_t> results;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    EXPECT_EQ(first_difference(outcomes[0], outcomes[i]), "nothing") << names[i];
    results.insert(hash_of(outcomes[i]));
  }
  EXPECT_EQ(results.size(), 1u);

  // The orders are worth comparing: distinct, and different in what crosses ranks.
  const TrainingModel model = TrainingModel::load(trial.config());
  const StageGraph graph = build_graph(model.config, model.connectivity, training_graph(trial.config(), model.config));
  const auto reference = collective_order(graph, reference_schedule(graph));
  std::set<uint64_t> hashes;
  int reordered = 0;
  for (size_t i = 0; i < orders.size(); ++i) {
    const Schedule schedule = orders[i](graph, model.config);
    hashes.insert(hash(graph, schedule));
    reordered += collective_order(graph, schedule) != reference;
  }
  // One rank reduces no gradients, and the exchanges of one microbatch are a chain: they have one order only.
  const bool chain = trial.layout.world() == 1 && trial.num_microbatches == 1;
  EXPECT_GT(2 * reordered, chain ? -1 : static_cast<int>(orders.size()));
  EXPECT_GE(static_cast<int>(hashes.size()), trial.num_random + 2);
  fmt::print("{} orders: {} distinct schedules, {} with another order of collectives, {} distinct result{}\n",
             orders.size(), hashes.size(), reordered, results.size(), results.size() == 1 ? "" : "s");
}

INSTANTIATE_TEST_SUITE_P(Matrix, Schedules, ::testing::ValuesIn(matrix()),
                         [](const auto& info) { return info.param.name(); });

TEST(Executor, IsReusedAndExchangedBetweenSteps) {
  const Trial trial{.num_steps = 4};
  std::vector<Bits> always(2), alternating(2);
  on_ranks(trial, [&](World& world) {
    TrainingSession a = make_session(trial, world), b = make_session(trial, world);
    const auto& graph = a.graph();
    const Schedule reference = reference_schedule(graph);
    const std::vector<Schedule> turns = {random_schedule(graph, 1), reference, random_schedule(graph, 2)};
    for (int step = 0; step < trial.num_steps; ++step) {
      append_step(always[world.rank()], step, a.step(step, reference), a);
      append_step(alternating[world.rank()], step, b.step(step, turns[step % turns.size()]), b);
    }
    append_weights(always[world.rank()], a.parameters());
    append_weights(alternating[world.rank()], b.parameters());
  });
  EXPECT_EQ(always, alternating);
}

/// The weights that a trial ends with, and its losses; not its gradients, which ranks keep parts of.
std::vector<Bits> results_of(const Trial& trial, const std::string& order) {
  std::vector<Bits> ranks = run_order(trial, named_order(order)).ranks;
  for (Bits& bits : ranks)
    std::erase_if(bits, [](const auto& bit) { return bit.first.find(".grad.") != bit.first.npos; });
  return ranks;
}

/// Named values of two runs that differ, of the values whose name starts with `prefix`.
int num_different(const std::vector<Bits>& a, const std::vector<Bits>& b, const std::string& prefix) {
  int count = 0;
  for (size_t rank = 0; rank < a.size(); ++rank) {
    for (size_t i = 0; i < a[rank].size(); ++i)
      count += a[rank][i].first.rfind(prefix, 0) == 0 && a[rank][i] != b[rank][i];
  }
  return count;
}

TEST(SharedOut, OptimizersLeaveTheBitsOfWholeOnes) {
  for (const bool bf16 : {false, true}) {
    for (const Layout& layout : {Layout{.ep = 2}, Layout{.dp = 2}, Layout{.ep = 2, .dp = 2}, Layout{.ep = 4}}) {
      const Trial whole{.layout = layout, .bf16 = bf16, .num_steps = 3};
      Trial shared = whole;
      shared.sharded = true;
      const auto a = results_of(whole, "reference"), b = results_of(shared, "search");
      ASSERT_GT(a.front().size(), 50u);
      EXPECT_EQ(num_different(a, b, "step"), 0) << layout.to_string();   // losses and norms
      EXPECT_EQ(num_different(a, b, "value"), 0) << layout.to_string();  // what stages compute with
      EXPECT_EQ(num_different(a, b, "bias"), 0) << layout.to_string();
    }
  }
}

TEST(Recomputation, LeavesTheBitsOfWhatIsKept) {
  for (const char* model : {"moonlight", "instella", "v2", "qwen3", "llama4"}) {
    for (const bool bf16 : {false, true}) {
      const Trial kept{.model = model, .bf16 = bf16};
      const Outcome expected = run_order(kept, reference_order());
      for (const char* recompute : {"full", "full 1", "core_attn", "layernorm", "moe_act"}) {
        Trial again = kept;
        again.recompute = recompute;
        const Outcome outcome = run_order(again, named_order("search"));
        EXPECT_EQ(first_difference(expected, outcome), "nothing") << model << " " << recompute;
        EXPECT_EQ(expected.load, outcome.load);
      }
    }
  }
}

TEST(Transports, LeaveTheSameBits) {
  for (const bool bf16 : {false, true}) {
    for (const Layout& layout : {Layout{.ep = 2}, Layout{.ep = 4}, Layout{.ep = 2, .dp = 2}}) {
      const Trial loopback{.layout = layout, .bf16 = bf16}, gloo{.layout = layout, .bf16 = bf16, .gloo = true};
      const Outcome a = run_order(loopback, reference_order()), b = run_order(gloo, named_order("paper"));
      EXPECT_EQ(first_difference(a, b), "nothing") << layout.to_string();
    }
  }
}

}  // namespace
}  // namespace farskip::test
