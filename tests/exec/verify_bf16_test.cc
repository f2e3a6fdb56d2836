// bf16 against the fp32 reference, with the reference's choice of experts: a near tie decided otherwise would be
// another function.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>

#include "base/error.h"
#include "exec/verify.h"
#include "model/safetensors_writer.h"
#include "tests/base/temp_folder.h"
#include "tests/exec/golden_folders.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

using testing::copies, testing::whole_data;

/// Relative L2 of logits that passes. Most cases: twice what was measured, at most 3e-2. Six cases are not within 3e-2
/// (measured 2.9e-2 to 4.5e-2, on one and two ranks alike), nor are transformers' own modules in bf16 with the same
/// choice of experts (3.0e-2 to 4.6e-2, see docs/numerics.md): theirs is a quarter above what was measured.
const std::map<std::string, double> limits = {
    {"deepseek_v2_farskip", 3e-2},
    {"deepseek_v2_group", 5.8e-2},
    {"deepseek_v2_lite", 3e-2},
    {"deepseek_v2_yarn", 4.3e-2},
    {"deepseek_v3", 4.4e-2},
    {"deepseek_v3_farskip", 3e-2},
    {"instella_attn_only", 3.8e-2},
    {"instella_full", 3e-2},
    {"instella_mlp_only", 3e-2},
    {"instella_nogate", 3e-2},
    {"instella_off", 4e-2},
    {"instella_plain_rope", 3e-2},
    {"instella_range", 4.4e-2},
    {"llama4", 3e-2},
    {"llama4_farskip", 2.2e-2},
    {"mixtral", 3e-2},
    {"mixtral_farskip", 2.6e-2},
    {"moonlight", 3e-2},
    {"olmoe", 2.8e-2},
    {"qwen3_moe", 3e-2},
    {"qwen3_moe_farskip", 2.4e-2},
};

Verification verify_on(int num_ranks, const fs::path& folder, VerifyOptions options, fs::path reference = {}) {
  options.layout.ep = num_ranks;
  if (reference.empty()) reference = folder / "golden.safetensors";
  Verification result;
  run_ranks(num_ranks, [&](World& world) {
    Verification mine = verify(folder, reference, options, world);
    if (world.rank() == 0) result = std::move(mine);
  });
  return result;
}

void check_folder(const fs::path& data) {
  for (const auto& [name, limit] : limits) {
    if (!fs::exists(data / name)) continue;
    for (const int num_ranks : {1, 2}) {
      VerifyOptions options{.dtype = at::kBFloat16, .reference_routing = true};
      options.tolerances.bf16_logits = limit;
      const Verification result = verify_on(num_ranks, data / name, options);
      ASSERT_EQ(result.quantities.size(), 1u) << "logits of batch a alone";
      const Quantity& logits = result.quantities[0];
      std::printf("%s on %d: %.1e\n", name.c_str(), num_ranks, logits.difference);
      EXPECT_TRUE(result.ok()) << name << "\n" << to_text(result.quantities);
      EXPECT_EQ(logits.name, "logits.a");
      EXPECT_EQ(logits.measure, "|d|/|g|");
      EXPECT_GT(logits.difference, 1e-4) << "that would not be bf16";
    }
  }
}

TEST(VerifyBf16, Copies) { check_folder(copies); }

TEST(VerifyBf16, AllGoldenData) {
  if (!fs::exists(whole_data)) GTEST_SKIP() << "no golden data at " << whole_data;
  for (const auto& entry : fs::directory_iterator(whole_data)) {
    if (!fs::exists(entry.path() / "golden.safetensors")) continue;
    EXPECT_EQ(limits.count(entry.path().filename()), 1u) << "a limit for " << entry.path();
  }
  check_folder(whole_data);
}

TEST(VerifyBf16, NeedsTheReferencesChoice) {
  EXPECT_THAT(error_of([] { verify_on(1, copies / "instella_range", {.dtype = at::kBFloat16}); }),
              HasSubstr("--routing reference"));
}

class ReferenceRouting : public ::testing::Test {
 protected:
  /// The case with its routing weights changed, verified in fp32 with the choice that they say.
  Verification run(const std::function<void(at::Tensor&)>& edit) const {
    const SafetensorsReader reader((folder_ / "golden.safetensors").string());
    NamedTensors tensors;
    for (const auto& name : reader.names()) tensors[name] = reader.tensor(name).clone();
    edit(tensors.at("routing.a.3"));
    const fs::path path = temporary_ / "reference.safetensors";
    save_safetensors(path, {tensors.begin(), tensors.end()});
    return verify_on(2, folder_, {.reference_routing = true}, path);
  }

  const fs::path folder_ = copies / "instella_range";
  TempFolder temporary_;
};

TEST_F(ReferenceRouting, OfTheModelsOwnChoiceChangesNothing) {
  const Verification result = run([](at::Tensor&) {});
  EXPECT_TRUE(result.ok()) << to_text(result.quantities);
  std::vector<std::string> names;
  for (const auto& quantity : result.quantities) names.push_back(quantity.name);
  EXPECT_THAT(names, ::testing::ElementsAre("logits.a", "loss.a", "hidden.a", "stream_y.a", "routing.a", "grad"))
      << "of batch b and of decoding the file says no choice";
}

TEST_F(ReferenceRouting, IsObeyed) {
  const Verification result = run([](at::Tensor& weights) {
    at::Tensor row = weights[0][2];
    const int64_t chosen = row.argmax().item<int64_t>(), other = row.argmin().item<int64_t>();
    row[other] = row[chosen].clone();
    row[chosen] = 0;
  });
  EXPECT_FALSE(result.ok());
  for (const Quantity& quantity : result.quantities) {
    if (quantity.name == "routing.a") {
      EXPECT_TRUE(quantity.same_choice) << "the experts are those of the file";
    } else if (quantity.name == "logits.a") {
      EXPECT_FALSE(quantity.ok());
    }
  }
}

TEST_F(ReferenceRouting, MustHaveAsManyExpertsAsTheModel) {
  EXPECT_THAT(error_of([&] { run([](at::Tensor& weights) { weights[1][4].zero_(); }); }),
              HasSubstr("routing.a.3: 1 of 34 tokens have other than"));
}

}  // namespace
}  // namespace farskip
