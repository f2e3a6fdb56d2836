// Controls that must fail: if these runs left the same bits, the equality of the others would prove nothing.

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/equivalence/trial.h"

namespace farskip::test {
namespace {

constexpr int num_orders = 40;

int num_different(const Trial& trial, const ExecutorOptions& options) {
  std::vector<Order> orders = {reference_order()};
  for (int seed = 1; seed <= num_orders; ++seed) orders.push_back(random_order(seed));
  const auto truth = run_order(trial, reference_order());
  const auto outcomes = run_orders(trial, orders, &options);
  EXPECT_EQ(first_difference(truth, outcomes[0]), "nothing") << "the reference computes in the order it adds";
  int different = 0;
  for (int i = 1; i <= num_orders; ++i) different += outcomes[i] != truth;
  return different;
}

// Only values with three or more contributions show it, since a + b = b + a: the feed-forward's input (gate, rows that
// travel, shared experts) and the streams.
TEST(Controls, FanInByArrivalDiffers) {
  for (const bool bf16 : {false, true}) {
    for (const char* connectivity : {"farskip", "standard"}) {
      const Trial trial{.connectivity = connectivity, .bf16 = bf16};
      const int different = num_different(trial, {.fan_in_by_arrival = true, .observe = nullptr});
      fmt::print("fan-in by arrival, {}, {}: {} of {} random orders differ\n", connectivity, bf16 ? "bf16" : "fp32",
                 different, num_orders);
      EXPECT_GE(different, num_orders * 9 / 10);
      EXPECT_EQ(num_different(trial, {.fan_in_by_arrival = false, .observe = nullptr}), 0);
    }
  }
}

TEST(Controls, AnotherConnectivityChangesTheLoss) {
  for (const bool bf16 : {false, true}) {
    std::map<double, std::string> seen;
    for (const char* connectivity :
         {"farskip", "standard", "attn-only", "mlp-only", "last=2", "layers=1-2", "skip=2,1,0", "skip=1,1,0"}) {
      const Outcome outcome = run_order({.connectivity = connectivity, .bf16 = bf16}, reference_order());
      const auto [same, is_new] = seen.try_emplace(outcome.loss, connectivity);
      EXPECT_TRUE(is_new) << connectivity << " and " << same->second << " have loss " << outcome.loss;
    }
  }
}

TEST(Controls, AnOrderOfAnotherConnectivityIsRefused) {
  const Trial standard{.connectivity = "standard"};
  const TrainingModel model = TrainingModel::load(standard.config());
  const GraphOptions options{Phase::train, standard.layout, 1, Scope::step};
  const StageGraph graph = build_graph(model.config, model.connectivity, options);
  const StageGraph far = build_graph(model.config, Connectivity::farskip(model.config.num_layers()), options);
  Schedule foreign{"farskip's paper order", {}};
  for (const Op& op : named_order("paper")(far, model.config).ops) {
    const Node& node = far.node(op.node);
    const NodeId same = graph.find(node.microbatch, node.layer, node.pass, node.stage);
    if (same != no_node) foreign.ops.push_back({same, op.kind});
  }
  on_ranks(standard, [&](World& world) {
    TrainingSession session = make_session(standard, world);
    try {
      Executor(graph, foreign, session.math(), session.parameters(), session.communicators(), nullptr);
      ADD_FAILURE() << "executed";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("mb0."), std::string::npos) << error.what();
    }
  });
}

TEST(Controls, TheFingerprintSeesOneBit) {
  at::Tensor values = at::arange(8, at::kFloat);
  const uint64_t before = hash_of(values);
  static_cast<uint32_t*>(values.data_ptr())[5] ^= 1;
  EXPECT_NE(hash_of(values), before);
}

}  // namespace
}  // namespace farskip::test
