// Search: never worse than the paper's order, the same everywhere, within its memory bound.

#include "sim/search.h"

#include <gmock/gmock.h>

#include <fstream>

#include "schedule/hand_orders.h"
#include "schedule/text.h"
#include "schedule/validate.h"
#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using testing::error_of;
using testing::GraphCase;
using ::testing::HasSubstr;

/// A preset cut to a few MoE layers, with its graph and modelled costs.
struct Cut {
  ModelConfig model;
  StageGraph graph;
  CostTable costs;

  Cut(const char* preset, int num_layers, const char* connectivity, const char* machine_name, int ranks,
      double sequences = 1, int num_microbatches = 1, Scope scope = Scope::step)
      : model(load_model_config(preset)) {
    model.layers.assign(num_layers, LayerKind::moe);
    Layout layout;
    layout.ep = ranks;
    graph = build_graph(model, Connectivity::parse(connectivity, num_layers),
                        {Phase::train, layout, num_microbatches, scope});
    Workload load;
    load.sequences = sequences;
    costs = model_costs(graph, model, machine(machine_name), load);
  }
  double step(const Schedule& schedule) const { return simulate(graph, schedule, costs).step_us; }
};

TEST(Search, IsNeverWorseThanThePapersOrder) {
  for (const char* connectivity : {"standard", "farskip", "attn-only", "mlp-only", "skip=2,1,0"}) {
    for (const char* machine_name : {"mi325x", "mi325x-4node", "h100", "cpu"}) {
      const Cut cut("small-deepseek-v2-lite", 4, connectivity, machine_name, 4);
      const SearchResult result = search_schedule(cut.graph, cut.costs);
      EXPECT_NO_THROW(validate(cut.graph, result.schedule));
      EXPECT_LE(result.step_us, cut.step(paper_schedule(cut.graph))) << connectivity << " " << machine_name;
      EXPECT_DOUBLE_EQ(result.step_us, cut.step(result.schedule));
      EXPECT_GE(result.step_us, lane_bound_us(cut.graph, cut.costs) - 1e-6);
      ASSERT_GE(result.candidates.size(), 7u);
      EXPECT_EQ(result.candidates.front().name, "paper");
      const double tolerance = SearchOptions{}.tolerance;  // among equally fast orders the sturdiest is taken
      for (const auto& candidate : result.candidates) EXPECT_GE(candidate.step_us * (1 + tolerance), result.step_us);
    }
  }
}

TEST(Search, IsDeterministic) {
  const Cut cut("deepseek-v3", 4, "farskip", "mi325x-4node", 32);
  const auto first = search_schedule(cut.graph, cut.costs), again = search_schedule(cut.graph, cut.costs);
  EXPECT_EQ(hash(cut.graph, first.schedule), hash(cut.graph, again.schedule));
  EXPECT_EQ(first.schedule.name, again.schedule.name);
}

TEST(Search, BoundsTheMicrobatchesInFlight) {
  const Cut cut("small-deepseek-v2-lite", 3, "standard", "mi325x-4node", 4, 1, 4);
  for (int bound : {1, 2}) {
    SearchOptions options;
    options.max_microbatches_in_flight = bound;
    const Schedule schedule = search_schedule(cut.graph, cut.costs, options).schedule;
    std::vector<int> backward_left(4, 0);
    for (const Node& node : cut.graph.nodes()) {
      if (node.pass == Pass::backward) ++backward_left[node.microbatch];
    }
    for (const NodeId id : order_of(schedule)) {
      const Node& node = cut.graph.node(id);
      if (node.pass == Pass::backward) --backward_left[node.microbatch];
      if (node.pass != Pass::forward || node.microbatch < bound) continue;
      ASSERT_EQ(backward_left[node.microbatch - bound], 0) << cut.graph.name(id) << " with " << bound << " in flight";
    }
  }
}

TEST(Search, WeightGradientsFillAShortDispatchGradientWindow) {
  // Across nodes the dispatch gradient is far longer than the q/k/v backward under which the paper's order puts it.
  const Cut cut("deepseek-v3", 6, "farskip", "mi325x-4node", 32, 1, 1, Scope::gradients);
  const double paper = cut.step(paper_schedule(cut.graph));
  const SearchResult found = search_schedule(cut.graph, cut.costs);
  EXPECT_LT(found.step_us, 0.98 * paper);
  EXPECT_THAT(found.schedule.name, HasSubstr("search (from "));
  // What fills it are weight gradients: some run between launch and await of a dispatch gradient.
  const NodeId dispatch = cut.graph.find("mb0.l3.bwd.dispatch");
  int num_filling = 0;
  bool in_flight = false;
  for (const Op& op : found.schedule.ops) {
    if (op.node == dispatch) in_flight = op.kind == OpKind::launch;
    num_filling += in_flight && cut.graph.node(op.node).pass == Pass::wgrad;
  }
  EXPECT_GT(num_filling, 1);
}

TEST(Search, AmongEquallyFastOrdersUnevenRanksDecide) {
  const Cut cut("small-moonlight", 6, "farskip", "mi325x", 8, 8);
  auto uneven_step = [&](const Schedule& schedule) {
    double sum = 0;
    for (uint64_t seed = 100; seed < 120; ++seed) {  // other draws than the search's own
      sum += simulated_step_us(
          cut.graph, schedule,
          {cut.costs.with_jitter(cut.graph, 0.1, seed, 0), cut.costs.with_jitter(cut.graph, 0.1, seed, 1)});
    }
    return sum / 20;
  };
  SearchOptions fastest;
  fastest.tolerance = 0;
  const SearchResult sturdy = search_schedule(cut.graph, cut.costs),
                     narrow = search_schedule(cut.graph, cut.costs, fastest);
  EXPECT_LE(narrow.step_us, sturdy.step_us);
  EXPECT_LE(uneven_step(sturdy.schedule), uneven_step(narrow.schedule) * 1.001);
  EXPECT_LE(uneven_step(sturdy.schedule), uneven_step(paper_schedule(cut.graph)) * 1.001);
}

TEST(Search, ConnectivityThenOrderDecideTheStep) {
  const Cut farskip("deepseek-v2-lite", 8, "farskip", "mi325x", 8, 8);
  const Cut standard("deepseek-v2-lite", 8, "standard", "mi325x", 8, 8);
  const auto async = [](const Cut& cut) { return cut.step(named_schedule("async", cut.graph, cut.costs)); };
  const double blocking = standard.step(reference_schedule(standard.graph));
  const double best_standard = search_schedule(standard.graph, standard.costs).step_us;
  const double best_farskip = search_schedule(farskip.graph, farskip.costs).step_us;
  EXPECT_LT(async(standard), blocking);
  EXPECT_LT(best_standard, blocking);
  EXPECT_LT(best_farskip, best_standard);
  EXPECT_LT(farskip.step(paper_schedule(farskip.graph)), async(farskip));
  // Connectivity alone hides nothing: awaited at once, both take the same time up to the sums of the second stream.
  EXPECT_NEAR(farskip.step(reference_schedule(farskip.graph)) / blocking, 1, 0.01);
}

TEST(Search, NamedSchedulesAndFiles) {
  const Cut cut("small-deepseek-v2-lite", 2, "farskip", "cpu", 2, 1, 2);
  for (const char* name : {"reference", "async", "paper", "two-batch", "1f1b"}) {
    EXPECT_EQ(named_schedule(name, cut.graph, cut.costs).name, name);
  }
  EXPECT_THAT(named_schedule("search", cut.graph, cut.costs).name, HasSubstr("search (from "));
  const std::string path = ::testing::TempDir() + "farskip_named_schedule.txt";
  const Schedule paper = paper_schedule(cut.graph);
  std::ofstream(path) << to_text(cut.graph, paper);
  EXPECT_EQ(named_schedule(path, cut.graph, cut.costs).ops, paper.ops);
  std::ofstream(path) << "run mb0.fwd.embed\n";
  EXPECT_THAT(error_of([&] { named_schedule(path, cut.graph, cut.costs); }), HasSubstr("is missing"));
  EXPECT_THAT(error_of([&] { named_schedule("papr", cut.graph, cut.costs); }),
              HasSubstr("schedule 'papr' is neither a name nor a readable file"));
  EXPECT_THAT(error_of([&] { named_schedule("/", cut.graph, cut.costs); }), HasSubstr("'/'"));
}

}  // namespace
}  // namespace farskip
