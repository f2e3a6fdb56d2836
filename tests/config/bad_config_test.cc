// A config.json that cannot be right is refused, naming the file, the key, the value and what was expected.

#include <gmock/gmock.h>

#include "helpers.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// The error after `value` is put at `key` of a preset.
std::string refusal(const std::string& name, const std::string& key, const json& value) {
  json config = preset_json(name);
  config[key] = value;
  return error_of([&] { parse_model_config(config, "dir/config.json"); });
}

std::string refusal_without(const std::string& name, const std::string& key) {
  json config = preset_json(name);
  config.erase(key);
  return error_of([&] { parse_model_config(config, "dir/config.json"); });
}

TEST(BadConfig, EveryMissingShapeIsNamed) {
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_experts_per_tok",
                          "num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
                          "intermediate_size", "moe_intermediate_size", "n_routed_experts"}) {
    EXPECT_THAT(refusal_without("deepseek-v3", key),
                AllOf(HasSubstr("dir/config.json"), HasSubstr(key), HasSubstr("missing")));
    EXPECT_THAT(refusal("deepseek-v3", key, nullptr), AllOf(HasSubstr(key), HasSubstr("null")));
  }
}

TEST(BadConfig, AbsentAndNullDifferWhereNullMeansNone) {
  EXPECT_THAT(refusal_without("deepseek-v2-lite", "q_lora_rank"), HasSubstr("null where the model has none"));
  EXPECT_THAT(refusal_without("deepseek-v2-lite", "n_shared_experts"), HasSubstr("null where the model has none"));
  json config = preset_json("deepseek-v2-lite");
  config["n_shared_experts"] = nullptr;
  EXPECT_FALSE(parse_model_config(config, "config.json").has_shared());
}

TEST(BadConfig, WrongTypesAndValues) {
  EXPECT_THAT(refusal("deepseek-v3", "hidden_size", "7168"), AllOf(HasSubstr("\"7168\""), HasSubstr("integer")));
  EXPECT_THAT(refusal("deepseek-v3", "hidden_size", 7168.0), HasSubstr("integer"));
  EXPECT_THAT(refusal("deepseek-v3", "hidden_size", 0), HasSubstr("at least 1"));
  EXPECT_THAT(refusal("deepseek-v3", "norm_topk_prob", 1), HasSubstr("true or false"));
  EXPECT_THAT(refusal("deepseek-v3", "rms_norm_eps", -1e-6), HasSubstr("positive"));
  EXPECT_THAT(refusal("deepseek-v3", "rope_scaling", "yarn"), HasSubstr("object"));
  EXPECT_THAT(refusal("qwen3-30b-a3b", "mlp_only_layers", {"a"}), HasSubstr("list of integers"));
  EXPECT_THAT(refusal("deepseek-v3", "architectures", "DeepseekV3ForCausalLM"), HasSubstr("list"));
}

TEST(BadConfig, UnknownFamiliesListTheSupportedOnes) {
  EXPECT_THAT(refusal("mixtral-8x7b", "architectures", {"GPT2LMHeadModel"}),
              AllOf(HasSubstr("GPT2LMHeadModel"), HasSubstr("MixtralForCausalLM")));
  json config = {{"model_type", "gpt2"}};
  EXPECT_THAT(error_of([&] { parse_model_config(config, "c"); }), AllOf(HasSubstr("gpt2"), HasSubstr("Qwen3Moe")));
  EXPECT_THAT(error_of([&] { parse_model_config(json::array(), "c"); }), HasSubstr("object"));
}

TEST(BadConfig, ImpossibleShapes) {
  EXPECT_THAT(refusal("deepseek-v3", "n_group", 7), AllOf(HasSubstr("n_group = 7"), HasSubstr("256")));
  EXPECT_THAT(refusal("deepseek-v3", "topk_group", 9), HasSubstr("n_group = 8"));
  EXPECT_THAT(refusal("deepseek-v3", "num_experts_per_tok", 257), HasSubstr("256 experts"));
  EXPECT_THAT(refusal("deepseek-v3", "num_experts_per_tok", 200), HasSubstr("topk_group"));
  EXPECT_THAT(refusal("deepseek-v3", "n_group", 256), HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(refusal("deepseek-v3", "qk_rope_head_dim", 63), HasSubstr("odd"));
  EXPECT_THAT(refusal("deepseek-v3", "num_key_value_heads", 8), HasSubstr("latent attention"));
  EXPECT_THAT(refusal("mixtral-8x7b", "num_key_value_heads", 7), HasSubstr("num_attention_heads = 32"));
  EXPECT_THAT(refusal("olmoe-1b-7b", "num_attention_heads", 48), HasSubstr("hidden_size = 2048"));
}

TEST(BadConfig, OptionsThatWouldChangeTheFunctionAreNotIgnored) {
  EXPECT_THAT(refusal("deepseek-v3", "hidden_act", "gelu"), HasSubstr("silu"));
  EXPECT_THAT(refusal("deepseek-v3", "scoring_func", "softmax"), HasSubstr("sigmoid"));
  EXPECT_THAT(refusal("deepseek-v2-lite", "topk_method", "noaux_tc"), HasSubstr("group_limited_greedy"));
  EXPECT_THAT(refusal("deepseek-v2-lite", "norm_topk_prob", true), HasSubstr("norm_topk_prob"));
  EXPECT_THAT(refusal("deepseek-v2-lite", "rope_scaling", {{"type", "linear"}, {"factor", 2}}), HasSubstr("linear"));
  EXPECT_THAT(refusal("deepseek-v2-lite", "rope_scaling", {{"type", "yarn"}}), HasSubstr("factor"));
  EXPECT_THAT(refusal("mixtral-8x7b", "sliding_window", 4096), HasSubstr("sliding"));
  EXPECT_THAT(refusal("olmoe-1b-7b", "clip_qkv", 8.0), HasSubstr("clip_qkv"));
}

}  // namespace
}  // namespace farskip
