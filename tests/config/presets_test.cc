// The presets: published sizes, and small models that keep the real ones' proportions.

#include <gmock/gmock.h>

#include "config/flops.h"
#include "helpers.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

double billions(const ModelConfig& model) { return static_cast<double>(model.num_parameters()) * 1e-9; }

TEST(Presets, AllLoadByName) {
  const std::vector<std::string> names = preset_names();
  EXPECT_THAT(names, ::testing::IsSupersetOf({"deepseek-v2", "deepseek-v2-lite", "deepseek-v3", "instella-moe-16b-a3b",
                                              "llama-4-maverick", "llama-4-scout", "mixtral-8x22b", "mixtral-8x7b",
                                              "moonlight-16b-a3b", "olmoe-1b-7b", "qwen3-235b-a22b", "qwen3-30b-a3b",
                                              "small-deepseek-v2", "small-deepseek-v2-lite", "small-deepseek-v3",
                                              "small-llama-4-scout", "small-moonlight"}));
  for (const std::string& name : names) {
    EXPECT_GT(load_model_config(name).num_parameters(), 0) << name;
    EXPECT_EQ(load_model_config(preset_path(name)).raw, load_model_config(preset_path(name) + "/config.json").raw);
  }
}

TEST(Presets, PublishedNumbersOfParameters) {
  EXPECT_NEAR(billions(preset("deepseek-v2-lite")), 15.7, 0.05);
  EXPECT_NEAR(billions(preset("deepseek-v2")), 235.7, 0.05);
  EXPECT_NEAR(billions(preset("deepseek-v3")), 671.0, 0.05);
  EXPECT_NEAR(billions(preset("instella-moe-16b-a3b")), 15.9, 0.05);
  EXPECT_NEAR(billions(preset("qwen3-30b-a3b")), 30.5, 0.05);
  EXPECT_NEAR(billions(preset("qwen3-235b-a22b")), 235.1, 0.05);
  EXPECT_NEAR(billions(preset("mixtral-8x7b")), 46.7, 0.05);
  EXPECT_NEAR(billions(preset("mixtral-8x22b")), 140.6, 0.05);
  EXPECT_NEAR(billions(preset("llama-4-scout")), 107.8, 0.05);  // 109 with the images' part
  EXPECT_NEAR(billions(preset("llama-4-maverick")), 400.7, 0.05);
  EXPECT_NEAR(billions(preset("olmoe-1b-7b")), 6.92, 0.005);
  nlohmann::json moonlight = preset_json("moonlight-16b-a3b");
  EXPECT_NEAR(billions(parse_model_config(moonlight, "published checkpoint")), 15.96, 0.005);
  moonlight["vocab_size"] = 129280;  // of AMD's training recipe
  EXPECT_NEAR(billions(parse_model_config(moonlight, "training recipe")), 15.8, 0.05);
}

TEST(Presets, PublishedNumbersOfActiveParameters) {
  EXPECT_NEAR(preset("qwen3-30b-a3b").num_active_parameters() * 1e-9, 3.3, 0.1);
  EXPECT_NEAR(preset("qwen3-235b-a22b").num_active_parameters() * 1e-9, 22, 0.3);
  EXPECT_NEAR(preset("mixtral-8x7b").num_active_parameters() * 1e-9, 12.9, 0.05);
  EXPECT_NEAR(preset("mixtral-8x22b").num_active_parameters() * 1e-9, 39, 0.3);
  EXPECT_NEAR(preset("llama-4-scout").num_active_parameters() * 1e-9, 17, 0.3);
  EXPECT_NEAR(preset("llama-4-maverick").num_active_parameters() * 1e-9, 17, 0.3);
  EXPECT_NEAR(preset("deepseek-v3").num_active_parameters() * 1e-9, 37.5, 0.1);
}

TEST(Presets, SmallModelsKeepTheProportionsOfTheRealOnes) {
  for (const auto& [small_name, real_name] :
       {std::pair("small-moonlight", "moonlight-16b-a3b"), std::pair("small-deepseek-v2-lite", "deepseek-v2-lite")}) {
    const ModelConfig small_model = preset(small_name);
    const FlopRatios small = flop_ratios(small_model, 256), real = flop_ratios(preset(real_name), 4096);
    const auto within = [&](double a, double b) { EXPECT_NEAR(a / b, 1.0, 0.25) << small_name; };
    within(small.attention / small.shared, real.attention / real.shared);
    within(small.routed / small.shared, real.routed / real.shared);
    within(small.attention / small.routed, real.attention / real.routed);
    EXPECT_GE(small_model.num_layers(), 12);
    EXPECT_FALSE(small_model.is_moe(0));
    EXPECT_TRUE(small_model.is_moe(1));
    EXPECT_EQ(small_model.vocab_size, 320);
    EXPECT_GT(small_model.num_parameters(), 2'000'000);
    EXPECT_LT(small_model.num_parameters(), 4'000'000);
  }
}

// Hidden size, widths, latents, all heads together and the prompt are a sixteenth of the real ones, so that every
// product of a layer is 1/256 of the real one and core attention has the same part in it
// (docs/inference_benchmarks.md).
TEST(Presets, ModelsOfTheInferenceFiguresAreASixteenthOfTheRealOnes) {
  for (const std::string name : {"llama-4-scout", "deepseek-v2", "deepseek-v3"}) {
    SCOPED_TRACE(name);
    const ModelConfig small = preset("small-" + name), real = preset(name);
    EXPECT_GE(small.num_layers(), 20);
    EXPECT_EQ(small.hidden_size * 16, real.hidden_size);
    const auto same = [](double a, double b) {
      if (b == 0) {
        EXPECT_EQ(a, 0);
      } else {
        EXPECT_NEAR(a / b, 1, 0.02);
      }
    };
    const TokenFlops a = layer_flops(small, LayerKind::moe, causal_context(128));
    const TokenFlops b = layer_flops(real, LayerKind::moe, causal_context(2048));
    same(a.attention_projections / a.routed, b.attention_projections / b.routed);
    same(a.attention_core / a.routed, b.attention_core / b.routed);
    same(a.shared / a.routed, b.shared / b.routed);
    same(layer_flops(small, LayerKind::dense, 0).dense / a.routed,
         layer_flops(real, LayerKind::dense, 0).dense / b.routed);
    EXPECT_EQ(small.is_moe(0), real.is_moe(0));
    EXPECT_TRUE(small.is_moe(small.num_layers() - 1));
    EXPECT_EQ(small.top_k, real.top_k);
    EXPECT_EQ(small.router.scoring, real.router.scoring);
    EXPECT_EQ(small.router.topk_groups, real.router.topk_groups);
    EXPECT_EQ(small.router.weigh_input, real.router.weigh_input);
    for (int64_t k = 0; k < small.num_layers(); ++k) {
      EXPECT_EQ(small.attention.of_layer(k).rotary, real.attention.of_layer(k).rotary) << k;
      EXPECT_EQ(small.attention.of_layer(k).chunk * 16, real.attention.of_layer(k).chunk) << k;
    }
  }
}

TEST(Presets, SmallModelsKeepTheOptionsOfTheRealOnes) {
  const ModelConfig moonlight = preset("small-moonlight");
  EXPECT_EQ(moonlight.router.scoring, Scoring::sigmoid);
  EXPECT_TRUE(moonlight.router.correction_bias);
  EXPECT_EQ(moonlight.router.scaling, 2.446);
  EXPECT_EQ(moonlight.attention.rotary.theta, 50000.0);
  EXPECT_FALSE(moonlight.attention.rotary.yarn);
  const ModelConfig lite = preset("small-deepseek-v2-lite");
  EXPECT_EQ(lite.router.scoring, Scoring::softmax);
  EXPECT_FALSE(lite.router.normalize);
  ASSERT_TRUE(lite.attention.rotary.yarn);
  EXPECT_EQ(lite.attention.rotary.yarn->factor, 40.0);
  EXPECT_EQ(lite.attention.rotary.yarn->mscale_all_dim, 0.707);
}

TEST(Presets, InstellaCarriesAmdsKeys) {
  const nlohmann::json config = preset_json("instella-moe-16b-a3b");
  EXPECT_TRUE(config["farskip"].get<bool>() && config["gated_attention"].get<bool>());
}

TEST(Presets, AnUnknownNameIsAnsweredWithTheNearest) {
  EXPECT_THAT(error_of([] { load_model_config("smal-moonlight"); }), HasSubstr("did you mean small-moonlight?"));
  EXPECT_THAT(error_of([] { load_model_config(""); }), HasSubstr("presets are:"));
}

TEST(Presets, AFolderOfOnesOwnComesFirst) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "farskip_own_presets";
  std::filesystem::create_directories(folder / "small-moonlight");
  nlohmann::json config = preset_json("small-moonlight");
  config["vocab_size"] = 512;
  std::ofstream(folder / "small-moonlight" / "config.json") << config;
  setenv("FARSKIP_PRESETS", folder.c_str(), 1);
  const int64_t own = load_model_config("small-moonlight").vocab_size;
  unsetenv("FARSKIP_PRESETS");
  std::filesystem::remove_all(folder);
  EXPECT_EQ(own, 512);
  EXPECT_EQ(load_model_config("small-moonlight").vocab_size, 320);
}

TEST(Presets, AFileThatIsNotJsonIsNamed) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "farskip_bad_config.json";
  std::ofstream(path) << "{ \"hidden_size\": ";
  EXPECT_THAT(error_of([&] { load_model_config(path.string()); }),
              AllOf(HasSubstr("farskip_bad_config.json"), HasSubstr("not JSON")));
  std::filesystem::remove(path);
}

// DeepSeek-V2-Lite by hand: attention 2*(2048*16*192 + 2048*576 + 512*16*256 + 2048*2048) + 2*16*320*2048.
TEST(Flops, CountsOfALayer) {
  const TokenFlops flops = layer_flops(preset("deepseek-v2-lite"), LayerKind::moe, causal_context(4096));
  EXPECT_EQ(flops.attention_projections, 2.0 * (6291456 + 1179648 + 2097152 + 4194304));
  EXPECT_EQ(flops.attention_core, 20971520.0);
  EXPECT_EQ(flops.shared, 6.0 * 2048 * 2816);
  EXPECT_EQ(flops.routed, 3 * flops.shared);
  EXPECT_EQ(flops.dense, 0);
  EXPECT_EQ(layer_flops(preset("deepseek-v2-lite"), LayerKind::dense, 0).dense, 6.0 * 2048 * 10944);
}

// At no context, a forward pass is twice the active parameters, less what is no matrix product.
TEST(Flops, AgreeWithActiveParameters) {
  const ModelConfig model = preset("mixtral-8x7b");  // no vectors but the norms
  const int64_t norms = (2 * model.num_layers() + 1) * model.hidden_size;
  const int64_t embedding = model.vocab_size * model.hidden_size;
  EXPECT_EQ(model_flops(model, 0).total(), 2.0 * (model.num_active_parameters() - norms - embedding));
}

TEST(Flops, TextNamesPartsAndRatios) {
  const std::string text = describe_flops(preset("small-moonlight"), 256);
  EXPECT_THAT(text, AllOf(HasSubstr("attention core"), HasSubstr("attention : shared : routed = 1.57 : 1.00 : 3.00")));
}

}  // namespace
}  // namespace farskip
