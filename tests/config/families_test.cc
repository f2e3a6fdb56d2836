// What each family's config.json means.

#include <gmock/gmock.h>

#include <cmath>
#include <regex>

#include "helpers.h"

namespace farskip {
namespace {

using nlohmann::json;

/// Case name -> "Parameters" of the table in golden/README.md.
std::vector<std::pair<std::string, int64_t>> golden_parameters(const std::filesystem::path& golden) {
  std::ifstream readme(golden / "README.md");
  const std::regex row(R"(^\| (\w+) \| [^|]* \| (\d+) \|.*)");
  std::vector<std::pair<std::string, int64_t>> cases;
  std::smatch match;
  for (std::string line; std::getline(readme, line);) {
    if (std::regex_match(line, match, row)) cases.emplace_back(match[1], std::stoll(match[2]));
  }
  return cases;
}

TEST(Families, EveryGoldenConfigHasItsNumberOfParameters) {
  const std::filesystem::path golden = source_dir() / ".." / "shared" / "golden";
  if (!std::filesystem::exists(golden / "README.md")) GTEST_SKIP() << "no golden data at " << golden;
  int compared = 0;
  for (const auto& [name, parameters] : golden_parameters(golden)) {
    const std::string folder = (golden / name).string();
    const ModelConfig model = load_model_config(folder);
    EXPECT_EQ(model.num_parameters(), parameters) << name;
    EXPECT_LT(model.num_active_parameters(), parameters) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 21);
}

TEST(Families, DeepseekV2Lite) {
  const ModelConfig model = preset("deepseek-v2-lite");
  EXPECT_EQ(model.attention.kind, AttentionKind::mla);
  EXPECT_EQ(model.attention.q_lora_rank, 0);
  EXPECT_EQ(model.attention.qk_head_dim(), 192);
  EXPECT_TRUE(model.attention.rotary.interleaved);
  EXPECT_EQ(model.shared_intermediate_size, 2816);
  EXPECT_EQ(model.router.scoring, Scoring::softmax);
  EXPECT_EQ(model.router.group_score, GroupScore::none);
  EXPECT_FALSE(model.router.normalize || model.router.correction_bias);
  EXPECT_FALSE(model.is_moe(0));
  EXPECT_TRUE(model.is_moe(1));
  const double m = 0.1 * 0.707 * std::log(40.0) + 1.0;
  EXPECT_NEAR(model.attention.softmax_scale(), m * m / std::sqrt(192.0), 1e-15);
}

TEST(Families, DeepseekV2ScoresGroupsByTheirMaximumAndScales) {
  const RouterConfig router = preset("deepseek-v2").router;
  EXPECT_EQ(router.group_score, GroupScore::max);
  EXPECT_EQ(router.num_groups, 8);
  EXPECT_EQ(router.topk_groups, 3);
  EXPECT_EQ(router.scaling, 16.0);
}

TEST(Families, DeepseekV3AndMoonlight) {
  const RouterConfig v3 = preset("deepseek-v3").router;
  EXPECT_EQ(v3.scoring, Scoring::sigmoid);
  EXPECT_EQ(v3.group_score, GroupScore::top2_sum);
  EXPECT_EQ(v3.num_groups, 8);
  EXPECT_TRUE(v3.correction_bias && v3.normalize);
  const ModelConfig moonlight = preset("moonlight-16b-a3b");
  EXPECT_EQ(moonlight.router.group_score, GroupScore::none);
  EXPECT_EQ(moonlight.router.num_groups, 1);
  EXPECT_EQ(moonlight.router.scaling, 2.446);
  EXPECT_FALSE(moonlight.attention.rotary.yarn);
  EXPECT_TRUE(moonlight.attention.rotary.interleaved);
  EXPECT_DOUBLE_EQ(moonlight.attention.softmax_scale(), 1 / std::sqrt(192.0));
}

TEST(Families, InstellaHasAGateAndYarnsSoftmaxScale) {
  const ModelConfig model = preset("instella-moe-16b-a3b");
  EXPECT_TRUE(model.attention.gated);
  EXPECT_NEAR(model.attention.softmax_scale(), 0.1656, 5e-5);  // and not 0.0883
}

TEST(Families, AbsentOptionsHaveTheDefaultsOfTransformers) {
  json config = preset_json("deepseek-v3");
  for (const char* key : {"rope_interleave", "norm_topk_prob", "routed_scaling_factor", "n_group", "topk_group",
                          "first_k_dense_replace", "rope_theta", "rope_scaling", "rms_norm_eps", "attention_bias",
                          "tie_word_embeddings", "topk_method", "scoring_func", "num_nextn_predict_layers",
                          "max_position_embeddings", "hidden_act", "num_key_value_heads", "moe_layer_freq"}) {
    ASSERT_EQ(config.erase(key), 1U) << key;
  }
  const ModelConfig model = parse_model_config(config, "config.json");
  EXPECT_TRUE(model.attention.rotary.interleaved);
  EXPECT_TRUE(model.router.normalize);
  EXPECT_EQ(model.router.scaling, 2.5);
  EXPECT_EQ(model.router.num_groups, 8);
  EXPECT_EQ(model.router.topk_groups, 4);
  EXPECT_FALSE(model.is_moe(2));
  EXPECT_TRUE(model.is_moe(3));
  EXPECT_EQ(model.attention.rotary.theta, 10000.0);
  EXPECT_FALSE(model.attention.rotary.yarn || model.tie_word_embeddings || model.attention.bias);
  EXPECT_EQ(model.rms_norm_eps, 1e-6);
  EXPECT_EQ(model.max_position_embeddings, 4096);
}

TEST(Families, GroupedQueryFamilies) {
  const ModelConfig qwen = preset("qwen3-30b-a3b");
  EXPECT_EQ(qwen.attention.kind, AttentionKind::gqa);
  EXPECT_EQ(qwen.attention.num_kv_heads, 4);
  EXPECT_EQ(qwen.attention.qk_head_dim(), 128);  // not hidden / heads = 64
  EXPECT_TRUE(qwen.attention.qk_norm && qwen.router.normalize);
  EXPECT_FALSE(qwen.has_shared() || qwen.attention.rotary.interleaved);
  const ModelConfig mixtral = preset("mixtral-8x7b");
  EXPECT_EQ(mixtral.moe_intermediate_size, 14336);
  EXPECT_TRUE(mixtral.router.normalize);
  EXPECT_FALSE(mixtral.attention.qk_norm || mixtral.attention.qk_norm_all_heads);
  const ModelConfig olmoe = preset("olmoe-1b-7b");
  EXPECT_TRUE(olmoe.attention.qk_norm_all_heads);
  EXPECT_FALSE(olmoe.router.normalize);
}

TEST(Families, QwenChoosesDenseLayersByListAndStep) {
  json config = preset_json("qwen3-30b-a3b");
  config["num_hidden_layers"] = 6;
  config["decoder_sparse_step"] = 2;
  config["mlp_only_layers"] = {3};
  const ModelConfig model = parse_model_config(config, "config.json");
  const auto dense = LayerKind::dense, moe = LayerKind::moe;
  EXPECT_EQ(model.layers, (std::vector{dense, moe, dense, dense, dense, moe}));
}

TEST(Families, MoeLayerFreqLeavesDenseLayersBetween) {
  json config = preset_json("small-moonlight");
  config["num_hidden_layers"] = 5;
  config["moe_layer_freq"] = 2;
  const auto dense = LayerKind::dense, moe = LayerKind::moe;
  EXPECT_EQ(parse_model_config(config, "config.json").layers, (std::vector{dense, dense, moe, dense, moe}));
}

TEST(Families, RopeParametersOfTransformers5MeanTheSame) {
  json config = preset_json("deepseek-v2-lite");
  const ModelConfig before = parse_model_config(config, "config.json");
  config["rope_parameters"] = config["rope_scaling"];
  config["rope_parameters"]["rope_type"] = "yarn";
  config["rope_parameters"]["rope_theta"] = 12345.0;
  config.erase("rope_scaling");
  config.erase("rope_theta");
  const ModelConfig after = parse_model_config(config, "config.json");
  EXPECT_EQ(after.attention.rotary.theta, 12345.0);
  ASSERT_TRUE(after.attention.rotary.yarn);
  EXPECT_EQ(after.attention.softmax_scale(), before.attention.softmax_scale());
}

TEST(Families, ModelTypeDecidesWhereArchitecturesIsAbsent) {
  json config = preset_json("mixtral-8x7b");
  config.erase("architectures");
  EXPECT_EQ(parse_model_config(config, "config.json").architecture, "MixtralForCausalLM");
}

TEST(Families, BiasesAndTiedEmbeddingsAreCounted) {
  json config = preset_json("small-moonlight");
  const int64_t before = parse_model_config(config, "config.json").num_parameters();
  config["attention_bias"] = true;  // on kv_a_proj_with_mqa [24 + 8] and o_proj [128]
  const int64_t biased = parse_model_config(config, "config.json").num_parameters();
  EXPECT_EQ(biased - before, 12 * (24 + 8 + 128));
  config["tie_word_embeddings"] = true;
  EXPECT_EQ(biased - parse_model_config(config, "config.json").num_parameters(), 320 * 128);
}

}  // namespace
}  // namespace farskip
