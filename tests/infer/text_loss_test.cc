// Losses of a text under connectivities, and what a difference is worth.

#include "infer/text_loss.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "config/model_config.h"
#include "model/safetensors.h"

namespace farskip {
namespace {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(TextLoss, IsTheGoldenLossUnderTheDeclaredConnectivityAlone) {
  for (const std::string name : {"deepseek_v3_farskip", "qwen3_moe_farskip", "instella_range"}) {
    const std::string folder = FARSKIP_SOURCE_DIR "/../shared/golden/" + name;
    if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no golden model at " << folder;
    const SafetensorsReader golden(folder + "/golden.safetensors");
    const at::Tensor ids = golden.tensor("input_ids.b").flatten().to(at::kInt).contiguous();
    const std::vector<int32_t> tokens(ids.data_ptr<int32_t>(), ids.data_ptr<int32_t>() + ids.numel());
    const ModelConfig config = load_model_config(folder);
    const auto declared = Connectivity::from_config(config.raw, config.num_layers());
    const auto losses = text_losses(folder, {declared, opposite(declared)}, tokens);
    ASSERT_EQ(losses[0].size(), tokens.size() - 1);
    const double expected = golden.tensor("loss.b").item<double>();
    EXPECT_NEAR(mean(losses[0]), expected, 2e-5) << name;
    EXPECT_GT(std::abs(mean(losses[1]) - expected), 1e-3) << name;

    // Windows predict what stands in them: the first token of each is given.
    const auto cut = text_losses(folder, {declared}, tokens, {.window = 13, .max_tokens = 30});
    EXPECT_EQ(cut[0].size(), 30u - 3);
    EXPECT_NEAR(cut[0][0], losses[0][0], 1e-4);
  }
}

TEST(TextLoss, BadTextsAreRefused) {
  const std::string folder = FARSKIP_SOURCE_DIR "/../shared/golden/mixtral";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no golden model at " << folder;
  const auto standard = Connectivity::standard(load_model_config(folder).num_layers());
  EXPECT_THROW(text_losses(folder, {standard}, {1}), Error);
  EXPECT_THROW(text_losses(folder, {standard}, {1, 1'000'000}), Error);
  EXPECT_THROW(text_losses(folder, {standard}, {1, -1}), Error);
}

TEST(TextLoss, ADifferenceIsClearWhereItIsNoChance) {
  std::vector<double> losses(400), better(400), noisy(400);
  for (int i = 0; i < 400; ++i) {
    losses[i] = 2.0 + (i % 7) * 0.3;
    better[i] = losses[i] - 0.1 - (i % 2) * 0.02;        // the same tokens are hard for both
    noisy[i] = losses[i] - 0.02 + (i % 2 ? 0.9 : -0.9);  // as large as chance makes it
  }
  const LossComparison clear = compare_losses(losses, better);
  EXPECT_TRUE(clear.clear());
  EXPECT_FALSE(clear.first_is_better());
  EXPECT_NEAR(clear.first - clear.second, 0.11, 1e-9);
  EXPECT_NEAR(clear.error, 0.01 / 20, 1e-5);
  EXPECT_TRUE(compare_losses(better, losses).first_is_better());
  EXPECT_FALSE(compare_losses(losses, noisy).clear());
  EXPECT_FALSE(compare_losses(losses, losses).clear());
  EXPECT_FALSE(compare_losses({1.0}, {5.0}).clear()) << "one token proves nothing";
}

TEST(TextLoss, TheOppositeOfStandardIsFarSkip) {
  EXPECT_EQ(opposite(Connectivity::standard(3)), Connectivity::farskip(3));
  for (const std::string spelling : {"farskip", "attn-only", "last=1", "skip=2,1,0"}) {
    EXPECT_TRUE(opposite(Connectivity::parse(spelling, 3)).is_standard());
  }
}

}  // namespace
}  // namespace farskip
