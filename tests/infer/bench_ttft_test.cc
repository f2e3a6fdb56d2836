// bench ttft: modes differ in graph and schedule alone, wrong answers are refused, and all figures are reported.
// Nothing here depends on how long anything takes.

#include "infer/bench_ttft.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "infer/bench_check.h"
#include "schedule/hand_orders.h"
#include "tests/base/error_of.h"
#include "tests/infer/tiny_config.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using testing::error_of;
using ::testing::HasSubstr;
using testing::write_tiny_config;

TtftOptions tiny_options(const std::string& layout, const std::string& modes) {
  TtftOptions options;
  options.model = write_tiny_config();
  options.layout = Layout::parse(layout);
  options.batch = 4;
  options.input = 16;
  options.output = 3;
  options.modes = parse_bench_modes(modes, 4);
  options.link = BenchLink::parse("rate=100gbit,latency=2us");  // shorter than any stage
  options.num_rounds = 6;
  options.num_calibration_steps = 3;
  return options;
}

TtftResult run(const TtftOptions& options) {
  TtftResult result;
  run_ranks(options.layout.world(), [&](World& world) {
    auto link = std::make_shared<Link>(LinkSpec{});
    struct Borrowed : World {
      explicit Borrowed(World& w) : inner(w) {}
      int rank() const override { return inner.rank(); }
      int size() const override { return inner.size(); }
      std::unique_ptr<Transport> group(const std::vector<int>& ranks, const std::string& name) override {
        return inner.group(ranks, name);
      }
      void abort(const std::string& message) override { inner.abort(message); }
      World& inner;
    };
    const auto linked = with_link(std::make_unique<Borrowed>(world), link);
    TtftResult mine = bench_ttft(options, *linked, *link);
    if (world.rank() == 0) result = std::move(mine);
  });
  return result;
}

/// Elements of each input of each stage that computes, summed over microbatches: (stage, layer) -> one number an input.
using KernelCalls = std::map<std::pair<std::string, int>, std::vector<int64_t>>;

/// What a prefill of four prompts of 16 tokens hands to the kernels of rank 0.
KernelCalls kernel_calls(const BenchMode& mode, const Layout& layout) {
  KernelCalls calls;
  run_ranks(layout.world(), [&](World& world) {
    InferenceModelOptions options;
    options.connectivity = mode.connectivity;
    options.layout = layout;
    options.rank = world.rank();
    const InferenceModel model(load_model_config(write_tiny_config()), 1, options);
    const Communicators communicators = Communicators::make(world, layout);
    const Decoder decoder(model, communicators, {.max_positions = 16, .num_microbatches = mode.num_microbatches()});
    const StageGraph& graph = decoder.graph();
    const int parts = mode.num_microbatches();
    nn::KvCache cache(model.local_config().attention, graph.num_layers(), 4, at::kFloat);
    std::vector<nn::PageTable> pages;
    for (int32_t i = 0; i < 4; ++i) pages.push_back({i});
    std::vector<nn::CacheStep> steps(parts, {&cache, {}});
    std::vector<Batch> batches(parts);
    const ForcedExperts forced{.num_experts = model.config().num_experts, .top_k = model.config().top_k};
    for (int part = 0, sequence = 0; part < parts; ++part) {
      const int64_t num = 4 / parts;
      std::vector<int64_t> tokens;
      for (int64_t i = 0; i < num; ++i) steps[part].chunks.push_back({&pages[sequence + i], i * 16, 16, 0});
      for (int64_t t = 0; t < num * 16; ++t) tokens.push_back(sequence * 16 + t);
      batches[part].tokens = at::tensor(tokens, at::kLong).remainder(64).unsqueeze(0);
      batches[part].positions = at::tensor(tokens, at::kLong).remainder(16).unsqueeze(0);
      batches[part].cache = &steps[part];
      batches[part].experts.assign(graph.num_layers(), forced.ids(tokens));
      batches[part].rank_tokens.assign(layout.expert_group(), num * 16);
      sequence += static_cast<int>(num);
    }
    std::map<ValueId, int64_t> elements;
    ExecutorOptions observing;
    observing.observe = [&](const Value& value, const at::Tensor& tensor) {
      elements[static_cast<ValueId>(&value - graph.values().data())] = tensor.numel();
    };
    CostTable costs;
    costs.us.assign(graph.num_nodes(), 1);
    const at::NoGradGuard no_grad;
    Executor executor(graph, mode.schedule(graph, costs), decoder.math(), communicators, observing);
    executor.run(std::move(batches));
    if (world.rank() != 0) return;
    for (const Node& node : graph.nodes()) {
      // Views are the sums that a connectivity is about; the norm of view_ff is told by its readers' input.
      const bool view =
          node.stage == Stage::view_attn || node.stage == Stage::view_ff || node.stage == Stage::view_head;
      if (node.is_collective() || view) continue;
      auto& inputs = calls[{std::string(to_string(node.stage)), node.layer}];
      inputs.resize(node.reads.size());
      for (size_t i = 0; i < node.reads.size(); ++i) {
        const auto found = elements.find(node.reads[i]);
        if (found != elements.end()) inputs[i] += found->second;
      }
    }
  });
  return calls;
}

TEST(BenchTtft, AllModesCallTheSameKernels) {
  for (const char* layout : {"tp=2", "ep=2"}) {
    const KernelCalls expected = kernel_calls(parse_bench_mode("standard-blocking", 4), Layout::parse(layout));
    EXPECT_EQ(expected.at({"qkv", 2}), std::vector<int64_t>({4 * 16 * 32}));
    EXPECT_GT(expected.at({"experts", 2}).at(0), 0);
    for (const BenchMode& mode : parse_bench_modes(default_bench_modes + std::string(",last=50%,attn-only"), 4))
      EXPECT_EQ(kernel_calls(mode, Layout::parse(layout)), expected) << mode.name << " " << layout;
  }
}

TEST(BenchTtft, ForcedExpertsAreSpreadAsWanted) {
  std::vector<int64_t> tokens(64);
  for (int64_t i = 0; i < 64; ++i) tokens[i] = i;
  const auto load = [&](const ForcedExperts& forced) {
    const at::Tensor ids = forced.ids(tokens);
    for (int64_t t = 0; t < 64; ++t) EXPECT_EQ(std::get<0>(at::_unique(ids[t])).numel(), forced.top_k);
    return ids.flatten().bincount({}, forced.num_experts);
  };
  EXPECT_TRUE(at::equal(load({.num_experts = 8, .top_k = 2}), at::full({8}, 16, at::kLong)));
  const ModelConfig model = load_model_config("small-deepseek-v3");
  const auto skewed = BenchRouting::parse("skewed=1.5").experts(model, Layout::parse("tp=2"));
  const at::Tensor loads = load(*skewed);
  EXPECT_EQ(loads.narrow(0, 0, 16).sum().item<int64_t>(), 64 * 8 * 3 / 4) << "1.5 times the mean of two ranks";
  EXPECT_FALSE(BenchRouting::parse("real").experts(model, Layout::parse("tp=2")));
}

TEST(BenchTtft, WrongRoutingsAreNamed) {
  const ModelConfig model = load_model_config("small-deepseek-v3");
  EXPECT_THAT(error_of([] { BenchRouting::parse("even"); }), HasSubstr("balanced, real or skewed=S"));
  EXPECT_THAT(error_of([] { BenchRouting::parse("skewed=0.5"); }), HasSubstr("skewed=0.5"));
  EXPECT_THAT(error_of([&] { BenchRouting::parse("skewed=3").experts(model, Layout::parse("tp=2")); }),
              HasSubstr("at most 2 times"));
  EXPECT_THAT(error_of([&] { BenchRouting::parse("skewed=3").experts(model, Layout::parse("ep=8")); }),
              AllOf(HasSubstr("visits 8 experts"), HasSubstr("has 4")));
}

TEST(BenchTtft, ReportsEveryModeAndWhatWasChecked) {
  const TtftResult result =
      run(tiny_options("tp=2", "standard-blocking,standard-async,farskip-blocking,farskip,farskip-two-batch"));
  ASSERT_EQ(result.modes.size(), 5);
  EXPECT_THAT(result.checked, Contains(HasSubstr("farskip: logits of 3 steps have the bits")));
  EXPECT_THAT(result.checked, Contains(HasSubstr("farskip: two batches give what one gives")));
  EXPECT_THAT(result.checked, Contains(HasSubstr("standard: 2 ranks give what one rank gives")));
  const nlohmann::json json = result.to_json();
  for (const char* key : {"model", "layout", "link", "share", "share_of", "batch", "input", "output", "routing",
                          "rounds", "checked", "remarks", "table", "modes", "unit", "machine"})
    EXPECT_TRUE(json.contains(key)) << key;
  for (const auto& mode : json["modes"]) {
    for (const char* key : {"mode",
                            "connectivity",
                            "schedule",
                            "schedule_hash",
                            "ttft",
                            "t_compute",
                            "t_comm",
                            "t_comm_unhideable",
                            "share",
                            "hidden",
                            "hidden_hideable_mean",
                            "hidden_all_mean",
                            "bound",
                            "efficiency",
                            "ideal",
                            "possible",
                            "speedup_over_standard_blocking",
                            "speedup_over_blocking",
                            "saved_over_blocking",
                            "collectives",
                            "decode"})
      EXPECT_TRUE(mode.contains(key)) << mode["mode"] << " " << key;
    EXPECT_TRUE(mode["decode"].contains("tpot"));
  }
  // A dense layer and three MoE layers of two all-reduces each; FarSkip's dense layer, and the last, have one.
  const auto count = [&](size_t mode, const char* key) {
    double sum = 0;
    for (const auto& row : json["modes"][mode]["collectives"]) sum += row[key].get<double>();
    return sum;
  };
  EXPECT_EQ(count(0, "count_per_step"), 8);
  EXPECT_EQ(count(1, "hideable_count_per_step"), 0);
  EXPECT_EQ(count(3, "count_per_step"), 6);
  EXPECT_EQ(count(3, "hideable_count_per_step"), 4) << "all but the dense layer's and the last";
  EXPECT_EQ(count(4, "count_per_step"), 12);
  EXPECT_THAT(result.remarks(), Contains(HasSubstr("standard-async: no order can hide any of its 8 collectives")));
  EXPECT_THAT(result.remarks(), Contains(HasSubstr("farskip: no order can hide 2 of its 6 collectives")));
  EXPECT_THAT(result.text(),
              AllOf(HasSubstr("standard-blocking: communication of a prefill"), HasSubstr("first token")));
  HtmlReport report("a benchmark");
  result.add_to(report);
  EXPECT_THAT(report.html(), AllOf(HasSubstr("<svg"), HasSubstr("farskip-two-batch")));
}

TEST(BenchTtft, OtherLayoutsRoutingsAndOneToken) {
  for (const char* layout : {"ep=2", "ep=2,exchange=a2a"}) {
    TtftOptions options = tiny_options(layout, "farskip-blocking,farskip");
    options.routing = BenchRouting::parse("real");
    const TtftResult result = run(options);
    EXPECT_GT(result.modes[1].prefill.overlap.total.count, 0) << layout;
    EXPECT_EQ(result.modes[1].prefill.speedup_standard.num_samples, 0) << "no standard mode to compare with";
  }
  TtftOptions options = tiny_options("tp=2", "farskip");
  options.output = 1;
  options.routing = BenchRouting::parse("skewed=1.5");
  const TtftResult result = run(options);
  EXPECT_EQ(result.modes[0].decode.num_steps, 0);
  EXPECT_FALSE(result.to_json()["modes"][0].contains("decode"));
}

TEST(BenchTtft, WrongAnswersAreRefused) {
  BatchAnswer right{at::zeros({3, 2, 8}), {{0, 0}, {0, 0}, {0, 0}}};
  BatchAnswer wrong{right.logits.clone(), right.tokens};
  check_same_bits(right, wrong, "mode x");
  wrong.logits[1][0][3] = 1e-30;
  EXPECT_THAT(error_of([&] { check_same_bits(right, wrong, "mode x"); }),
              AllOf(HasSubstr("mode x"), HasSubstr("1 of 3 steps"), HasSubstr("first in step 1")));
  const auto alone = make_single("world");
  right.logits.fill_(2);
  wrong.logits.fill_(2.5);
  EXPECT_DOUBLE_EQ(answer_distance(right, wrong, true, *alone), 0.25);
  wrong.tokens[2][1] = 5;
  EXPECT_TRUE(std::isinf(answer_distance(right, wrong, true, *alone)));
  EXPECT_DOUBLE_EQ(answer_distance(right, wrong, false, *alone), 0.25);
}

TEST(BenchTtft, PromptsAndTheirRanks) {
  const auto prompts = random_prompts(3, 20, 64, 7);
  EXPECT_EQ(prompts, random_prompts(3, 20, 64, 7));
  EXPECT_NE(prompts[0], prompts[1]);
  EXPECT_EQ(sequences_of_rank(4, Layout::parse("tp=2"), 1), std::vector<int64_t>({0, 1, 2, 3}));
  EXPECT_EQ(sequences_of_rank(5, Layout::parse("ep=2"), 1), std::vector<int64_t>({1, 3}));
  EXPECT_TRUE(sequences_of_rank(1, Layout::parse("ep=2"), 1).empty());
}

}  // namespace
}  // namespace farskip
