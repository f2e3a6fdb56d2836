// The model against values of the field's reference code: cases under tests/golden everywhere, all of the golden data
// where it lies beside the source tree.

#include "exec/verify.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "config/model_config.h"
#include "layer/connectivity.h"
#include "model/safetensors_writer.h"
#include "schedule/schedule.h"
#include "schedule/text.h"
#include "tests/base/temp_folder.h"
#include "tests/exec/golden_folders.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

using testing::copies, testing::whole_data;

std::vector<std::string> cases_in(const fs::path& folder) {
  std::vector<std::string> names;
  if (!fs::exists(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (fs::exists(entry.path() / "golden.safetensors")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Verification verify_on(int num_ranks, const fs::path& model, const fs::path& reference, VerifyOptions options = {}) {
  if (options.layout == Layout{}) options.layout.ep = num_ranks;
  Verification result;
  run_ranks(num_ranks, [&](World& world) {
    Verification mine = verify(model, reference, options, world);
    if (world.rank() == 0) result = std::move(mine);
  });
  return result;
}

Verification verify_case(const fs::path& folder, int num_ranks, const std::string& schedule = "reference") {
  VerifyOptions options;
  options.schedule = schedule;
  return verify_on(num_ranks, folder, folder / "golden.safetensors", options);
}

using VerifiedCase = std::tuple<std::string, int, std::string>;

class Golden : public ::testing::TestWithParam<VerifiedCase> {};

TEST_P(Golden, AgreesWithTheReference) {
  const auto& [name, num_ranks, schedule] = GetParam();
  const fs::path folder = copies / name;
  const Verification result = verify_case(folder, num_ranks, schedule);
  EXPECT_TRUE(result.ok()) << to_text(result.quantities);
  // 2 batches of logits, loss and greedy ids, and of batch a the streams, routing and gradients.
  const bool farskip = load_model_config(folder).raw.value("farskip", false);
  EXPECT_EQ(result.quantities.size(), farskip ? 10u : 9u) << to_text(result.quantities);
}

INSTANTIATE_TEST_SUITE_P(Copies, Golden,
                         ::testing::Combine(::testing::ValuesIn(cases_in(copies)), ::testing::Values(1, 2),
                                            ::testing::Values("reference", "paper")),
                         [](const auto& info) {
                           return fmt::format("{}_{}_{}", std::get<0>(info.param), std::get<1>(info.param),
                                              std::get<2>(info.param));
                         });

TEST(GoldenData, AllOfItAgrees) {
  const auto names = cases_in(whole_data);
  if (names.empty()) GTEST_SKIP() << "no golden data at " << whole_data;
  EXPECT_GE(names.size(), 17u);
  for (const auto& name : names) {
    for (int num_ranks : {1, 2}) {
      const Verification result = verify_case(whole_data / name, num_ranks, "search");
      EXPECT_TRUE(result.ok()) << name << " on " << num_ranks << "\n" << to_text(result.quantities);
    }
  }
}

TEST(Verify, MoreRanksThanSequences) {
  for (const auto& [ep, dp] : {std::pair(4, 1), std::pair(2, 2)}) {
    VerifyOptions options;
    options.layout.ep = ep;
    options.layout.dp = dp;
    options.schedule = "async";
    const fs::path folder = copies / "instella_range";
    const Verification result = verify_on(4, folder, folder / "golden.safetensors", options);
    EXPECT_TRUE(result.ok()) << to_text(result.quantities);
  }
}

TEST(Verify, ScheduleFromAFile) {
  const fs::path folder = copies / "instella_range";
  const ModelConfig config = load_model_config(folder);
  VerifyOptions options;
  options.layout.ep = 2;
  const auto connectivity = Connectivity::from_config(config.raw, config.num_layers());
  const StageGraph graph = build_graph(config, connectivity, {Phase::train, options.layout, 1, Scope::step});
  const TempFolder temporary;
  options.schedule = temporary / "order.txt";
  write_file(options.schedule, to_text(graph, reference_schedule(graph)));
  const Verification result = verify_on(2, folder, folder / "golden.safetensors", options);
  EXPECT_TRUE(result.ok()) << to_text(result.quantities);
  options.schedule = temporary / "none.txt";
  EXPECT_THAT(error_of([&] { verify_on(2, folder, folder / "golden.safetensors", options); }), HasSubstr("none.txt"));
}

/// Copies of a case that a test may spoil.
class Spoiled : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* file : {"config.json", "model.safetensors"}) fs::copy(source_ / file, folder_.string());
    const SafetensorsReader reader((source_ / "golden.safetensors").string());
    for (const auto& name : reader.names()) tensors_[name] = reader.tensor(name).clone();
  }

  fs::path reference() const {
    const fs::path path = folder_ / "reference.safetensors";
    save_safetensors(path, {tensors_.begin(), tensors_.end()});
    return path;
  }
  Verification run(int num_ranks = 1) const { return verify_on(num_ranks, folder_.string(), reference()); }
  void set_config(const std::string& key, const nlohmann::json& value) const {
    const std::string path = folder_ / "config.json";
    auto config = nlohmann::json::parse(read_file(path));
    config[key] = value;
    write_file(path, config.dump());
  }
  /// Names of the quantities that fail.
  std::vector<std::string> failed() const {
    std::vector<std::string> names;
    for (const auto& quantity : run().quantities) {
      if (!quantity.ok()) names.push_back(quantity.name);
    }
    return names;
  }

  const fs::path source_ = copies / "instella_mlp_only";
  TempFolder folder_;
  NamedTensors tensors_;
};

TEST_F(Spoiled, UnspoiledPasses) { EXPECT_TRUE(run().ok()); }

TEST_F(Spoiled, AnotherConnectivityFails) {
  set_config("mlp_only_farskip", false);
  const auto names = failed();
  for (const char* name :
       {"logits.a", "logits.b", "loss.a", "hidden.a", "stream_y.a", "routing.a", "grad", "greedy.a"}) {
    EXPECT_THAT(names, ::testing::Contains(name));
  }
}

TEST_F(Spoiled, EveryKindOfTensorIsCompared) {
  for (const auto& [tensor, quantity] : {std::pair("logits.b", "logits.b"),
                                         {"loss.a", "loss.a"},
                                         {"hidden.a.2", "hidden.a"},
                                         {"stream_y.a.4", "stream_y.a"},
                                         {"routing.a.3", "routing.a"},
                                         {"grad.model.norm.weight", "grad"},
                                         {"grad.model.layers.2.mlp.experts.7.down_proj.weight", "grad"},
                                         {"greedy.b", "greedy.b"}}) {
    const at::Tensor good = tensors_.at(tensor);
    tensors_.at(tensor) = good.clone();
    at::Tensor element = tensors_.at(tensor).view(-1)[0];
    element.add_(1);
    EXPECT_THAT(failed(), ::testing::ElementsAre(quantity)) << tensor;
    tensors_.at(tensor) = good;
  }
}

TEST_F(Spoiled, NotANumberFails) {
  tensors_.at("hidden.a.1").view(-1)[5].fill_(std::nan(""));
  EXPECT_THAT(failed(), ::testing::ElementsAre("hidden.a"));
}

TEST_F(Spoiled, OtherExpertsFailHoweverSmallTheirWeight) {
  at::Tensor row = tensors_.at("routing.a.1")[0][3];
  row[row.argmin()].fill_(1e-6);
  const auto result = run();
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(to_text(result.quantities), HasSubstr("routing.a.1: 1 of 34 tokens choose other experts"));
}

TEST_F(Spoiled, WhatIsComputedIsAReference) {
  tensors_ = run(2).computed;
  const auto quantities = run(2).quantities;
  for (const auto& quantity : quantities) EXPECT_EQ(quantity.difference, 0) << quantity.name;
}

TEST_F(Spoiled, MissingTensorsAreNamed) {
  tensors_.erase("hidden.a.2");
  tensors_.erase("grad.lm_head.weight");
  const std::string text = error_of([&] { run(2); });
  EXPECT_THAT(text, HasSubstr("missing tensors, 2: hidden.a.2, grad.lm_head.weight"));
}

TEST_F(Spoiled, UnknownTensorsAreNamed) {
  tensors_["grad.model.layers.9.input_layernorm.weight"] = at::zeros({32});
  EXPECT_THAT(error_of([&] { run(); }), HasSubstr("does not have, 1: grad.model.layers.9.input_layernorm.weight"));
}

TEST_F(Spoiled, WrongShapesAreNamed) {
  tensors_.at("logits.a") = tensors_.at("logits.a").narrow(1, 0, 16).contiguous();
  EXPECT_THAT(error_of([&] { run(2); }), HasSubstr("logits.a is [2, 16, "));
  tensors_.at("input_ids.a") = tensors_.at("input_ids.a").to(at::kFloat);
  EXPECT_THAT(error_of([&] { run(); }), HasSubstr("input_ids.a should be int64"));
}

TEST_F(Spoiled, IdsOutsideTheVocabulary) {
  tensors_.at("input_ids.b").view(-1)[3].fill_(100000);
  EXPECT_THAT(error_of([&] { run(); }), HasSubstr("input_ids.b run from"));
}

TEST_F(Spoiled, LayoutsThatDoNotDivide) {
  EXPECT_THAT(error_of([&] { run(3); }), HasSubstr("8 experts cannot be divided over 3 ranks"));
  VerifyOptions options;
  options.layout.ep = 4;
  EXPECT_THAT(error_of([&] { verify_on(2, folder_.string(), reference(), options); }), HasSubstr("needs 4 ranks"));
}

TEST_F(Spoiled, WeightsThatDoNotFit) {
  set_config("moe_intermediate_size", 16);
  EXPECT_THAT(error_of([&] { run(); }), HasSubstr("does not fit the model"));
}

}  // namespace
}  // namespace farskip
