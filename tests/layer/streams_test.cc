// The views that readers get, against expansions written down independently of the code.

#include "layer/streams.h"

#include <gmock/gmock.h>

#include "tests/layer/symbols.h"
#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using testing::evaluate;
using testing::GraphCase;
using testing::Views;

/// The two streams of the paper, layer by layer: x is the whole residual, y misses the routed output of the layer
/// before. `attention_skips(k)` and `ff_skips(k)` say which of them, and whether attention's own output, a reader gets.
template <typename A, typename F>
Views two_streams(const std::string& kinds, bool shared, A attention_skips, F ff_skips) {
  Views views;
  std::string x = "x", y = "x";
  for (int k = 0; k < static_cast<int>(kinds.size()); ++k) {
    const std::string n = std::to_string(k), h = "(" + x + " + a" + n + ")";
    views.attention[k] = attention_skips(k) ? y : x;
    views.feed_forward[k] = ff_skips(k) ? x : h;
    if (kinds[k] == 'd') {
      x = y = "(" + h + " + d" + n + ")";
    } else if (shared) {
      y = "(" + h + " + s" + n + ")";
      x = "(" + h + " + (r" + n + " + s" + n + "))";
    } else {
      y = h;
      x = "(" + h + " + r" + n + ")";
    }
  }
  views.head = x;
  return views;
}

void expect_equal(const Views& got, const Views& wanted, const std::string& what) {
  EXPECT_EQ(got.attention, wanted.attention) << what;
  EXPECT_EQ(got.feed_forward, wanted.feed_forward) << what;
  EXPECT_EQ(got.head, wanted.head) << what;
}

TEST(Streams, AreTheTwoStreamsOfThePaper) {
  const auto always = [](int) { return true; };
  const auto never = [](int) { return false; };
  const auto from_2 = [](int k) { return k >= 2; };
  const auto in_1_2 = [](int k) { return k == 1 || k == 2; };
  for (const std::string kinds : {"dmmmm", "mmdmm", "mmdd", "ddm", "m"}) {
    const int num_layers = static_cast<int>(kinds.size());
    for (bool shared : {true, false}) {
      for (const auto& [phase, layout] : {std::pair{Phase::train, "ep=2"}, std::pair{Phase::prefill, "ep=2"}}) {
        auto check = [&](const std::string& connectivity, auto attention_skips, auto ff_skips) {
          GraphCase made{kinds, connectivity, phase, layout, shared};
          expect_equal(evaluate(made.graph()), two_streams(kinds, shared, attention_skips, ff_skips), made.describe());
        };
        check("standard", never, never);
        check("farskip", always, always);
        check("attn-only", always, never);
        check("mlp-only", never, always);
        if (num_layers > 2) check("last=" + std::to_string(num_layers - 2), from_2, from_2);
        if (num_layers > 2) check("layers=1-2", in_1_2, in_1_2);
      }
    }
  }
}

TEST(Streams, BracketsAreTheContractOnBits) {
  const Views views = evaluate(GraphCase{"dmm", "farskip"}.graph());
  EXPECT_EQ(views.head, "((((((x + a0) + d0) + a1) + (r1 + s1)) + a2) + (r2 + s2))");
  EXPECT_EQ(views.attention.at(2), "((((x + a0) + d0) + a1) + s1)");
}

TEST(Streams, TheFirstLayerOfARangeMissesTheRoutedOutputBeforeIt) {
  const Views views = evaluate(GraphCase{"mmmm", "layers=2-2"}.graph());
  EXPECT_EQ(views.attention.at(1), "((x + a0) + (r0 + s0))");
  EXPECT_EQ(views.attention.at(2), "((((x + a0) + (r0 + s0)) + a1) + s1)");
  EXPECT_EQ(testing::symbols_of(views.attention.at(3)).count("r2"), 1u);
}

TEST(Streams, TwoLayerSkipIsAStreamOfItsOwn) {
  // z_{k+1} = (z'_k + a) + s, where z' is the view that misses r_{k-1}: no subtraction anywhere.
  const Views views = evaluate(GraphCase{"mmmm", "skip=2,1,0"}.graph());
  EXPECT_EQ(views.attention.at(1), "((x + a0) + s0)");
  EXPECT_EQ(views.attention.at(2), "((((x + a0) + s0) + a1) + s1)");
  EXPECT_EQ(views.attention.at(3), "((((((x + a0) + (r0 + s0)) + a1) + s1) + a2) + s2)");
  EXPECT_EQ(views.feed_forward.at(1), "((x + a0) + s0)");
  EXPECT_EQ(views.feed_forward.at(2), "((((x + a0) + (r0 + s0)) + a1) + s1)");
}

/// What skip=a,f,g says a reader of layer k gets: routed outputs of layers up to `routed`, attention up to `attention`,
/// every shared expert and dense feed-forward before k.
std::multiset<std::string> expected_symbols(const GraphCase& made, int k, int routed, int attention) {
  std::multiset<std::string> symbols = {"x"};
  for (int j = 0; j < static_cast<int>(made.kinds.size()); ++j) {
    const std::string n = std::to_string(j);
    if (j <= attention) symbols.insert("a" + n);
    if (made.kinds[j] == 'm' && j <= routed) symbols.insert("r" + n);
    if (made.kinds[j] == 'm' && j < k && made.shared) symbols.insert("s" + n);
    if (made.kinds[j] == 'd' && j < k) symbols.insert("d" + n);
  }
  return symbols;
}

TEST(Streams, EveryReaderGetsExactlyItsContributions) {
  for (const GraphCase& made : testing::many_cases()) {
    const auto connectivity = Connectivity::parse(made.connectivity, static_cast<int64_t>(made.kinds.size()));
    const Views views = evaluate(made.graph());
    const int num_layers = static_cast<int>(made.kinds.size());
    for (int k = 0; k < num_layers; ++k) {
      const auto [a, f, g] = connectivity.layer(k);
      EXPECT_EQ(testing::symbols_of(views.attention.at(k)), expected_symbols(made, k, k - 1 - a, k - 1))
          << made.describe() << ", attention of layer " << k << " reads " << views.attention.at(k);
      EXPECT_EQ(testing::symbols_of(views.feed_forward.at(k)), expected_symbols(made, k, k - 1 - f, k - 1 - g))
          << made.describe() << ", feed-forward of layer " << k << " reads " << views.feed_forward.at(k);
    }
    EXPECT_EQ(testing::symbols_of(views.head), expected_symbols(made, num_layers, num_layers, num_layers))
        << made.describe();
  }
}

TEST(Streams, NoSumIsComputedTwice) {
  for (const GraphCase& made : testing::many_cases()) {
    const StageGraph graph = made.graph();
    std::set<std::pair<ValueId, ValueId>> sums;
    for (const Node& node : graph.nodes()) {
      for (const Sum& sum : node.sums) EXPECT_TRUE(sums.emplace(sum.left, sum.right).second) << made.describe();
    }
  }
}

TEST(Streams, PartialSumsThatShareAnAllReduceFollowFromTheReaders) {
  using enum Contribution;
  using Groups = std::vector<std::vector<Contribution>>;
  const auto model = testing::tiny_model("mmdm");
  auto groups = [&](const char* connectivity, int k) {
    return shared_reductions(model, Connectivity::parse(connectivity, 4), k);
  };
  EXPECT_EQ(groups("farskip", 0), (Groups{{attention, shared}, {routed}}));
  EXPECT_EQ(groups("farskip", 2), (Groups{{attention, dense}}));
  EXPECT_EQ(groups("standard", 0), (Groups{{attention}, {routed, shared}}));
  EXPECT_EQ(groups("standard", 2), (Groups{{attention}, {dense}}));
  EXPECT_EQ(groups("mlp-only", 0), (Groups{{attention, routed, shared}}));
  EXPECT_EQ(groups("mlp-only", 2), (Groups{{attention, dense}}));
  // The next attention reads shared experts without the routed ones, so these cannot go together.
  EXPECT_EQ(groups("attn-only", 0), (Groups{{attention}, {routed}, {shared}}));
  // Nobody behind the last layer misses anything.
  EXPECT_EQ(groups("farskip", 3), (Groups{{attention, routed, shared}}));
  EXPECT_EQ(groups("attn-only", 3), (Groups{{attention}, {routed, shared}}));
  // A standard layer before a FarSkip one still hands on both streams.
  EXPECT_EQ(groups("layers=1-1", 0), (Groups{{attention}, {routed}, {shared}}));
}

TEST(Streams, TensorParallelInferenceReducesThoseSums) {
  auto reductions = [](const char* connectivity, const char* kinds) {
    const StageGraph graph = GraphCase{kinds, connectivity, Phase::prefill, "tp=2"}.graph();
    std::vector<std::string> names;
    for (NodeId id = 0; id < graph.num_nodes(); ++id) {
      if (!graph.node(id).is_collective()) continue;
      std::string reads;
      for (ValueId v : graph.node(id).reads) reads += " " + graph.value(v).name;
      names.push_back(graph.name(id) + ":" + reads);
      EXPECT_EQ(graph.node(id).group, Group::expert);
    }
    return names;
  };
  using ::testing::ElementsAre;
  EXPECT_THAT(reductions("farskip", "dm"),
              ElementsAre("mb0.l0.fwd.reduce_attn: mb0.l0.attn mb0.l0.dense",
                          "mb0.l1.fwd.reduce_attn: mb0.l1.attn mb0.l1.routed mb0.l1.shared"));
  EXPECT_THAT(
      reductions("farskip", "mm"),
      ElementsAre("mb0.l0.fwd.reduce_attn: mb0.l0.attn mb0.l0.shared", "mb0.l0.fwd.reduce_routed: mb0.l0.routed",
                  "mb0.l1.fwd.reduce_attn: mb0.l1.attn mb0.l1.routed mb0.l1.shared"));
  EXPECT_THAT(reductions("standard", "m"), ElementsAre("mb0.l0.fwd.reduce_attn: mb0.l0.attn",
                                                       "mb0.l0.fwd.reduce_routed: mb0.l0.routed mb0.l0.shared"));
  EXPECT_THAT(reductions("attn-only", "mm"),
              ElementsAre("mb0.l0.fwd.reduce_attn: mb0.l0.attn", "mb0.l0.fwd.reduce_routed: mb0.l0.routed",
                          "mb0.l0.fwd.reduce_shared: mb0.l0.shared", "mb0.l1.fwd.reduce_attn: mb0.l1.attn",
                          "mb0.l1.fwd.reduce_routed: mb0.l1.routed mb0.l1.shared"));
}

}  // namespace
}  // namespace farskip
