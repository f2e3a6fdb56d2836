// Llama-4: layers that differ from each other, and two forms of config.json.

#include <gmock/gmock.h>

#include "config/flops.h"
#include "helpers.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

ModelConfig parse(const json& config) { return parse_model_config(config, "config.json"); }

/// The config.json of the whole model, images included.
json whole_model(json text) {
  text.erase("architectures");
  return {{"architectures", {"Llama4ForConditionalGeneration"}}, {"model_type", "llama4"}, {"text_config", text}};
}

std::string refusal(const std::string& key, const json& value) {
  json config = preset_json("llama-4-scout");
  config[key] = value;
  return error_of([&] { parse(config); });
}

TEST(Llama4, Scout) {
  const ModelConfig model = preset("llama-4-scout");
  EXPECT_EQ(model.num_layers(), 48);
  EXPECT_EQ(model.num_experts, 16);
  EXPECT_EQ(model.top_k, 1);
  EXPECT_TRUE(model.router.weigh_input && model.router.by_logits && model.attention.qk_l2_norm);
  EXPECT_FALSE(model.router.normalize || model.router.correction_bias || model.attention.bias);
  EXPECT_EQ(model.router.scoring, Scoring::sigmoid);
  EXPECT_TRUE(model.attention.rotary.interleaved);
  ASSERT_TRUE(model.attention.rotary.llama3 && model.attention.rotary.temperature);
  EXPECT_EQ(model.attention.rotary.llama3->factor, 16.0);
  EXPECT_EQ(model.attention.rotary.temperature->floor, 8192.0);
  for (int64_t k = 0; k < 48; ++k) {
    EXPECT_TRUE(model.is_moe(k)) << k;
    EXPECT_EQ(model.attention.of_layer(k).rotary, k % 4 != 3) << k;
    EXPECT_EQ(model.attention.of_layer(k).chunk, k % 4 != 3 ? 8192 : 0) << k;
  }
}

TEST(Llama4, MaverickAlternatesDenseAndMoe) {
  const ModelConfig model = preset("llama-4-maverick");
  EXPECT_EQ(model.num_experts, 128);
  EXPECT_FALSE(model.attention.qk_l2_norm || model.attention.rotary.llama3);
  EXPECT_EQ(model.intermediate_size, 16384);
  EXPECT_EQ(model.moe_intermediate_size, 8192);
  EXPECT_EQ(model.shared_intermediate_size, 8192);
  for (int64_t k = 0; k < model.num_layers(); ++k) EXPECT_EQ(model.is_moe(k), k % 2 == 1) << k;
}

TEST(Llama4, TheWholeModelHasTheSameTextModel) {
  const json config = preset_json("llama-4-scout");
  const ModelConfig text = parse(config), whole = parse(whole_model(config));
  EXPECT_EQ(whole.architecture, "Llama4ForConditionalGeneration");
  EXPECT_EQ(text.num_parameters(), whole.num_parameters());
  EXPECT_EQ(text.layers, whole.layers);
  EXPECT_EQ(text.attention.layers.size(), whole.attention.layers.size());
  json anonymous = config;
  anonymous.erase("architectures");
  EXPECT_EQ(parse(anonymous).architecture, "Llama4ForCausalLM") << "by model_type llama4_text";
}

TEST(Llama4, ListsDecideWhereTheyAreGiven) {
  json config = preset_json("llama-4-scout");
  config["num_hidden_layers"] = 4;
  config["no_rope_layers"] = {0, 1, 1, 0};
  config["moe_layers"] = {0, 2};
  config["attention_chunk_size"] = 16;
  config["attn_temperature_tuning"] = 4;  // as published first: a number that means true
  const ModelConfig model = parse(config);
  EXPECT_EQ(model.layers, (std::vector{LayerKind::moe, LayerKind::dense, LayerKind::moe, LayerKind::dense}));
  EXPECT_FALSE(model.attention.of_layer(0).rotary);
  EXPECT_EQ(model.attention.of_layer(0).chunk, 0);
  EXPECT_EQ(model.attention.of_layer(1).chunk, 16);
  EXPECT_TRUE(model.attention.rotary.temperature);
  config["layer_types"] = {"chunked_attention", "full_attention", "full_attention", "full_attention"};
  config["attn_temperature_tuning"] = false;
  const ModelConfig typed = parse(config);
  EXPECT_FALSE(typed.attention.of_layer(0).rotary) << "types say who is chunked, not who rotates";
  EXPECT_EQ(typed.attention.of_layer(0).chunk, 16);
  EXPECT_EQ(typed.attention.of_layer(1).chunk, 0);
  EXPECT_FALSE(typed.attention.rotary.temperature);
}

TEST(Llama4, RefusesWhatCannotBe) {
  EXPECT_THAT(refusal("no_rope_layers", {1, 0}), AllOf(HasSubstr("no_rope_layers"), HasSubstr("each of 48 layers")));
  EXPECT_THAT(refusal("layer_types", json(std::vector<std::string>(48, "sliding_attention"))),
              AllOf(HasSubstr("layer_types"), HasSubstr("chunked_attention")));
  EXPECT_THAT(refusal("layer_types", {1}), HasSubstr("a list of strings"));
  EXPECT_THAT(refusal("head_dim", nullptr), HasSubstr("head_dim"));
  EXPECT_THAT(refusal("attention_bias", true), HasSubstr("attention_bias"));
  EXPECT_THAT(refusal("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}), HasSubstr("low_freq_factor"));
  EXPECT_THAT(refusal("rope_scaling", {{"rope_type", "llama3"},
                                       {"factor", 8.0},
                                       {"low_freq_factor", 4.0},
                                       {"high_freq_factor", 1.0},
                                       {"original_max_position_embeddings", 64}}),
              AllOf(HasSubstr("high_freq_factor"), HasSubstr("at least")));
}

TEST(Llama4, ConnectivityBelongsToTheTopOfTheConfig) {
  json config = whole_model(preset_json("llama-4-scout"));
  config["farskip"] = true;
  EXPECT_NO_THROW(parse(config));
  config["text_config"]["farskip"] = true;
  EXPECT_THAT(error_of([&] { parse(config); }), AllOf(HasSubstr("text_config: farskip"), HasSubstr("top level")));
  config.erase("text_config");
  EXPECT_THAT(error_of([&] { parse(config); }), HasSubstr("text_config"));
}

TEST(Llama4, ChunksShortenTheContext) {
  EXPECT_EQ(causal_context(100, 0), 50.0);
  EXPECT_EQ(causal_context(100, 100), 50.0);
  EXPECT_EQ(causal_context(100, 40), (2 * 40.0 * 40.0 + 20.0 * 20.0) / 200.0);
  const ModelConfig model = preset("llama-4-scout");
  const double short_core = model_flops(model, 8192).attention_core;
  const double long_core = model_flops(model, 4 * 8192).attention_core;
  EXPECT_DOUBLE_EQ(long_core / short_core, (36 + 12 * 4) / 48.0) << "three layers of four stay in their chunks";
}

TEST(WeightBlocks, OfDeepseeksFp8Checkpoints) {
  json config = preset_json("deepseek-v3");
  EXPECT_TRUE(parse(config).weight_block.empty());
  config["quantization_config"] = {
      {"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}, {"weight_block_size", {128, 64}}};
  EXPECT_EQ(parse(config).weight_block, (std::vector<int64_t>{128, 64}));
  config["quantization_config"]["weight_block_size"] = {128};
  EXPECT_THAT(error_of([&] { parse(config); }), HasSubstr("two sizes"));
  config["quantization_config"] = {{"quant_method", "awq"}};
  EXPECT_TRUE(parse(config).weight_block.empty()) << "loading will tell";
}

}  // namespace
}  // namespace farskip
