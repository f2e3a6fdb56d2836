// Calibration of whole models: golden checkpoints of every kind of attention and feed-forward, on one rank and several.

#include "distill/calibrate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <tuple>

#include "base/error.h"
#include "model/checkpoint.h"
#include "tests/base/temp_folder.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

std::string golden(const std::string& name) { return FARSKIP_SOURCE_DIR "/../shared/golden/" + name; }

/// Sequences with a structure that a model can see: each token follows from the one before, mostly.
at::Tensor text(int64_t num_sequences, int64_t length, int64_t vocabulary) {
  const at::Tensor tokens = at::empty({num_sequences, length}, at::kLong);
  uint64_t state = 12345;
  for (int64_t i = 0; i < tokens.numel(); ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    tokens.data_ptr<int64_t>()[i] = static_cast<int64_t>((state >> 40) % static_cast<uint64_t>(vocabulary));
  }
  return tokens;
}

struct Outcome {
  CalibrationReport report;
  std::vector<at::Tensor> weights;  ///< of rank 0
};

Outcome outcome(const std::string& folder, const std::string& student, int num_ranks = 1,
                const CalibrationOptions& options = {}, const std::string& layout_text = "") {
  const ModelConfig model = load_model_config(folder);
  const auto from = Connectivity::from_config(model.raw, model.num_layers());
  const auto to = Connectivity::parse(student, model.num_layers());
  const at::Tensor tokens = text(48, 32, model.vocab_size);
  Outcome result;
  const Layout layout = Layout::parse(layout_text);
  run_ranks(num_ranks, [&](World& world) {
    const Communicators communicators = Communicators::make(world, layout);
    ParameterSet parameters(std::make_shared<const ParameterTable>(model),
                            {.expert_rank = world.rank() % layout.ep, .expert_ranks = layout.ep, .keep_main = false});
    load_checkpoint(folder, parameters);
    // Held-out sequences are each rank's last: the same set whatever the number of ranks.
    const at::Tensor own = at::cat({tokens.narrow(0, 0, 40).chunk(num_ranks)[world.rank()],
                                    tokens.narrow(0, 40, 8).chunk(num_ranks)[world.rank()]});
    CalibrationOptions mine = options;
    mine.held_out = 8.0 / 48;
    auto report = calibrate(model, from, to, parameters, communicators, layout, own, mine);
    if (world.rank() != 0) return;
    result.report = std::move(report);
    for (int id = 0; id < parameters.size(); ++id) result.weights.push_back(parameters.value(id).clone());
  });
  return result;
}

class Calibrate : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder())) GTEST_SKIP() << "no golden model at " << folder();
  }
  std::string folder() const { return golden(GetParam()); }
};

TEST_P(Calibrate, BringsInputsAndPredictionsNearer) {
  const Outcome mapped = outcome(folder(), "farskip");
  ASSERT_FALSE(mapped.report.maps.empty());
  for (const auto& map : mapped.report.maps) EXPECT_LE(map.error, map.identity_error);
  EXPECT_GT(mapped.report.before.kl, 0);
  EXPECT_LT(mapped.report.after.kl, mapped.report.before.kl);
  EXPECT_TRUE(mapped.report.accepted());
  EXPECT_EQ(mapped.report.after.num_tokens, 8 * 32);
  EXPECT_EQ(mapped.report.fitted_tokens, 40 * 32);
}

TEST_P(Calibrate, RanksFindTheSameMaps) {
  const Outcome one = outcome(folder(), "farskip");
  for (const char* layout : {"dp=2", "ep=2"}) {
    const Outcome two = outcome(folder(), "farskip", 2, {}, layout);
    EXPECT_NEAR(two.report.after.kl, one.report.after.kl, 1e-3 * one.report.after.kl) << layout;
    EXPECT_NEAR(two.report.before.kl, one.report.before.kl, 1e-4 * one.report.before.kl) << layout;
    ASSERT_EQ(two.report.maps.size(), one.report.maps.size());
    for (size_t i = 0; i < one.report.maps.size(); ++i) {
      EXPECT_EQ(two.report.maps[i].damping, one.report.maps[i].damping) << i;
      EXPECT_NEAR(two.report.maps[i].error, one.report.maps[i].error, 1e-4) << i;
    }
  }
}

// No chunk and no place to wait changes what is computed.
TEST_P(Calibrate, WaitingOnDiskChangesNothing) {
  const TempFolder temp;
  const Outcome memory = outcome(folder(), "farskip", 1, {.tokens_per_chunk = 160});
  const Outcome disk = outcome(folder(), "farskip", 1, {.tokens_per_chunk = 160, .spool_folder = temp.string()});
  for (size_t i = 0; i < memory.weights.size(); ++i) EXPECT_TRUE(at::equal(memory.weights[i], disk.weights[i])) << i;
  EXPECT_TRUE(std::filesystem::is_empty(temp.string()));
}

INSTANTIATE_TEST_SUITE_P(Families, Calibrate,
                         ::testing::Values("deepseek_v2_lite", "deepseek_v3", "instella_off", "qwen3_moe", "llama4",
                                           "mixtral", "olmoe"),
                         [](const auto& info) { return info.param; });

TEST(Calibration, TheSameConnectivityNeedsNoMap) {
  if (!std::filesystem::exists(golden("qwen3_moe"))) GTEST_SKIP();
  const Outcome same = outcome(golden("qwen3_moe"), "standard");
  EXPECT_TRUE(same.report.maps.empty());
  EXPECT_EQ(same.report.before.kl, 0);
  EXPECT_EQ(same.report.after.kl, 0);
  EXPECT_FALSE(same.report.accepted());
}

TEST(Calibration, OnlyReadersBehindTheFirstChangeAreMapped) {
  if (!std::filesystem::exists(golden("deepseek_v3"))) GTEST_SKIP();
  const int64_t num_layers = load_model_config(golden("deepseek_v3")).num_layers();
  const Outcome last = outcome(golden("deepseek_v3"), "last=1");
  ASSERT_FALSE(last.report.maps.empty());
  for (const auto& map : last.report.maps) EXPECT_GE(map.layer, num_layers - 1) << to_string(map.site);
  const Outcome mlp_only = outcome(golden("deepseek_v3"), "mlp-only");
  EXPECT_EQ(mlp_only.report.maps.front().site, MapSite::feed_forward_input);
}

// Each kind of map finds its place, and nothing but what the report names has changed.
TEST(Calibration, WhatTheReportNamesIsWhatHasChanged) {
  if (!std::filesystem::exists(golden("deepseek_v3"))) GTEST_SKIP();
  const ModelConfig model = load_model_config(golden("deepseek_v3"));
  ParameterSet before(std::make_shared<const ParameterTable>(model), {.keep_main = false});
  load_checkpoint(golden("deepseek_v3"), before);
  nn::ModelWeights weights = before.weights();
  const std::set<MapSite> late = {MapSite::layer_output};
  const std::set<MapSite> apart = {MapSite::attention_output, MapSite::feed_forward_output};
  for (const auto& [student, outputs, max_expert_bytes] :
       {std::tuple("farskip", late, 1e9), std::tuple("farskip", late, 0.0), std::tuple("attn-only", apart, 1e9)}) {
    const Outcome after = outcome(golden("deepseek_v3"), student, 1, {.max_expert_bytes = max_expert_bytes});
    EXPECT_TRUE(after.report.accepted());
    std::set<MapSite> sites;
    for (const auto& map : after.report.maps) sites.insert(map.site);
    EXPECT_EQ(sites.contains(MapSite::expert_input), max_expert_bytes > 0);
    EXPECT_EQ(sites.contains(MapSite::expert_output), max_expert_bytes > 0);
    for (const MapSite site : {MapSite::attention_input, MapSite::feed_forward_input, MapSite::head_input})
      EXPECT_TRUE(sites.contains(site)) << to_string(site);
    for (const MapSite site : late) EXPECT_EQ(sites.contains(site), outputs == late) << to_string(site);
    for (const MapSite site : apart) EXPECT_EQ(sites.contains(site), outputs == apart) << to_string(site);
    std::set<int> named;
    for (const nn::Param* param : after.report.mapped_weights(weights)) named.insert(param->id);
    for (int id = 0; id < before.size(); ++id)
      EXPECT_EQ(at::equal(before.value(id), after.weights[id]), !named.contains(id)) << id;
  }
}

TEST(Calibration, TooLittleTextIsRefused) {
  if (!std::filesystem::exists(golden("qwen3_moe"))) GTEST_SKIP();
  const ModelConfig model = load_model_config(golden("qwen3_moe"));
  run_ranks(1, [&](World& world) {
    const Communicators communicators = Communicators::make(world, {});
    ParameterSet parameters(std::make_shared<const ParameterTable>(model), {.keep_main = false});
    const auto standard = Connectivity::standard(model.num_layers());
    EXPECT_THROW(calibrate(model, standard, Connectivity::farskip(model.num_layers()), parameters, communicators, {},
                           text(1, 16, model.vocab_size)),
                 Error);
  });
}

}  // namespace
}  // namespace farskip
