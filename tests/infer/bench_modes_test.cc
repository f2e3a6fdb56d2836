// The modes that `bench ttft` compares: what they are called, that graph and schedule alone tell them apart, and what
// they are worth in simulation on the models of the figures.

#include "infer/bench_modes.h"

#include <gmock/gmock.h>

#include <map>

#include "schedule/validate.h"
#include "sim/exposure.h"
#include "sim/simulate.h"
#include "tests/base/error_of.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(BenchModes, AreAConnectivityAndAnOrder) {
  const auto modes =
      parse_bench_modes("standard-blocking,farskip,last=50%/two-batch,skip=2,1,0-async,attn-only,mlp-only-blocking", 8);
  ASSERT_EQ(modes.size(), 6);
  const std::vector<std::pair<std::string, BenchOrder>> expected = {
      {"standard", BenchOrder::blocking},    {"farskip", BenchOrder::overlapped},
      {"last=4", BenchOrder::two_batch},     {"skip=2,1,0", BenchOrder::overlapped},
      {"attn-only", BenchOrder::overlapped}, {"mlp-only", BenchOrder::blocking}};
  for (size_t i = 0; i < modes.size(); ++i) {
    EXPECT_EQ(modes[i].connectivity, expected[i].first);
    EXPECT_EQ(modes[i].order, expected[i].second) << modes[i].name;
  }
  EXPECT_EQ(modes[2].name, "last=50%/two-batch");
  EXPECT_EQ(modes[2].num_microbatches(), 2);
  EXPECT_EQ(find_blocking(modes, "standard"), 0);
  EXPECT_EQ(find_blocking(modes, "farskip"), -1);
  EXPECT_EQ(parse_bench_modes(default_bench_modes, 8).size(), 6);
}

TEST(BenchModes, WrongOnesAreNamed) {
  using testing::error_of;
  EXPECT_THAT(error_of([] { parse_bench_modes("farskip,fast", 8); }),
              AllOf(HasSubstr("mode 'fast'"), HasSubstr("farskip"), HasSubstr("-two-batch")));
  EXPECT_THAT(error_of([] { parse_bench_modes("standard-paper", 8); }), HasSubstr("mode 'standard-paper'"));
  EXPECT_THAT(error_of([] { parse_bench_modes("farskip,standard,farskip-async", 8); }),
              HasSubstr("'farskip' and 'farskip-async' are the same"));
  EXPECT_THAT(error_of([] { parse_bench_modes("", 8); }), HasSubstr("standard-blocking"));
}

/// (stage, layer) of the nodes that compute, with how often they occur.
std::map<std::pair<std::string, int>, int> computations(const StageGraph& graph) {
  std::map<std::pair<std::string, int>, int> found;
  for (const Node& node : graph.nodes()) {
    // The sums of a view are what a connectivity is about.
    if (node.is_collective() || node.stage == Stage::view_attn || node.stage == Stage::view_head) continue;
    ++found[{std::string(to_string(node.stage)), node.layer}];
  }
  return found;
}

TEST(BenchModes, HaveTheSameStages) {
  const ModelConfig model = load_model_config("small-deepseek-v3");
  for (const char* layout : {"tp=2", "ep=2", "ep=2,exchange=a2a"}) {
    std::map<std::pair<std::string, int>, int> expected;
    for (const BenchMode& mode :
         parse_bench_modes(default_bench_modes + std::string(",last=50%"), model.num_layers())) {
      auto found = computations(mode.graph(model, Layout::parse(layout), Phase::prefill));
      for (auto& [stage, count] : found) {
        EXPECT_EQ(count, mode.num_microbatches()) << mode.name << " " << stage.first;
        count = 1;
      }
      if (expected.empty()) expected = found;
      EXPECT_EQ(found, expected) << mode.name << " " << layout;
    }
    EXPECT_GT(expected.size(), 6 * model.layers.size());
  }
}

struct Simulated {
  double step_us = 0;
  OverlapSummary overlap;
  double comm_us = 0, unhideable_us = 0;
};

Simulated simulated(const BenchMode& mode, const StageGraph& graph, const CostTable& costs) {
  const Schedule schedule = mode.schedule(graph, costs);
  validate(graph, schedule);
  const Simulation run = simulate(graph, schedule, costs);
  Simulated result{.step_us = run.step_us,
                   .overlap = summarize(
                       measure_overlap(run.timeline, exposure_hint(graph, costs, mode.order != BenchOrder::blocking)))};
  result.comm_us = result.overlap.total.duration_us;
  result.unhideable_us = result.comm_us - result.overlap.hideable_total.duration_us;
  return result;
}

/// A prefill of four prompts of 128 tokens on two ranks, with communication `share` of the blocking FarSkip step.
struct SimulatedPrefill {
  ModelConfig model;
  double slowdown = 1;
  Workload load{.sequences = 4, .seq_length = 128, .bytes_per_value = 4};

  SimulatedPrefill(const std::string& name, double share) : model(load_model_config(name)) {
    const StageGraph graph = mode("farskip").graph(model, Layout::parse("tp=2"), Phase::prefill);
    double compute = 0, comm = 0;
    const CostTable costs = model_costs(graph, model, machine("cpu"), load);
    for (NodeId id = 0; id < graph.num_nodes(); ++id) (graph.node(id).is_collective() ? comm : compute) += costs.us[id];
    slowdown = share / (1 - share) * compute / comm;
  }
  BenchMode mode(const std::string& text) const { return parse_bench_mode(text, model.num_layers()); }
  Simulated run(const std::string& text) const {
    const StageGraph graph = mode(text).graph(model, Layout::parse("tp=2"), Phase::prefill);
    Workload part = load;
    part.sequences /= mode(text).num_microbatches();
    return simulated(mode(text), graph,
                     model_costs(graph, model, machine("cpu"), part).with_slower_communication(graph, slowdown));
  }
};

TEST(BenchModes, HideAllReducesOfThePresetsInSimulation) {
  for (const auto& [name, share] : {std::pair("small-llama-4-scout", 0.10), std::pair("small-deepseek-v2", 0.15),
                                    std::pair("small-deepseek-v3", 0.26)}) {
    SCOPED_TRACE(name);
    const SimulatedPrefill prefill(name, share);
    const Simulated blocking = prefill.run("farskip-blocking"), overlapped = prefill.run("farskip");
    EXPECT_NEAR(blocking.comm_us / blocking.step_us, share, 1e-9);
    EXPECT_GE(overlapped.overlap.hideable_total.hidden(), 0.97);
    EXPECT_LE(overlapped.unhideable_us, 0.06 * overlapped.comm_us) << "the last layer's, and a dense layer's";
    const double possible = blocking.step_us / (blocking.step_us - blocking.comm_us + blocking.unhideable_us);
    EXPECT_GE(blocking.step_us / overlapped.step_us, possible - 0.02);
    std::printf("%s at %.2f: %.1f %% of the hideable, %.1f %% of all communication hidden; %.3f of at most %.3f\n",
                name, share, 100 * overlapped.overlap.hideable_total.hidden(), 100 * overlapped.overlap.total.hidden(),
                blocking.step_us / overlapped.step_us, 1 / (1 - share));
  }
}

// Between the stages of a standard layer there is nothing to compute: only a second batch can hide its all-reduces.
TEST(BenchModes, AStandardModelHidesNothingAloneInSimulation) {
  const SimulatedPrefill prefill("small-deepseek-v3", 0.26);
  const Simulated blocking = prefill.run("standard-blocking"), alone = prefill.run("standard-async");
  EXPECT_DOUBLE_EQ(alone.step_us, blocking.step_us);
  EXPECT_EQ(alone.overlap.hideable_total.count, 0);
  EXPECT_EQ(alone.overlap.kinds.at(0).main_reason(), "nothing to compute beside it");
  const Simulated two = prefill.run("standard-two-batch");
  EXPECT_GE(two.overlap.hideable_total.hidden(), 0.9);
  EXPECT_LT(two.step_us, blocking.step_us);
}

}  // namespace
}  // namespace farskip
