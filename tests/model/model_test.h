#pragma once
// What the tests of this folder share: golden models, small models written by hand, temporary folders.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "config/model_config.h"
#include "model/parameters.h"
#include "tests/base/temp_folder.h"

namespace farskip::testing {

namespace fs = std::filesystem;

inline fs::path golden_folder(const std::string& name) {
  return fs::path(FARSKIP_SOURCE_DIR) / ".." / "shared" / "golden" / name;
}

/// Ends the test where the golden models are not at hand.
#define REQUIRE_GOLDEN(name)                                                               \
  if (!std::filesystem::exists(::farskip::testing::golden_folder(name) / "config.json")) { \
    GTEST_SKIP() << "no golden model at " << ::farskip::testing::golden_folder(name);      \
  }

/// All golden cases.
inline const std::vector<std::string> golden_names = {"instella_full",
                                                      "instella_attn_only",
                                                      "instella_mlp_only",
                                                      "instella_range",
                                                      "instella_off",
                                                      "instella_nogate",
                                                      "instella_plain_rope",
                                                      "deepseek_v2_lite",
                                                      "deepseek_v2_group",
                                                      "deepseek_v2_yarn",
                                                      "deepseek_v2_farskip",
                                                      "deepseek_v3",
                                                      "moonlight",
                                                      "deepseek_v3_farskip",
                                                      "qwen3_moe",
                                                      "qwen3_moe_farskip",
                                                      "llama4",
                                                      "llama4_farskip",
                                                      "mixtral",
                                                      "mixtral_farskip",
                                                      "olmoe"};

inline nlohmann::json read_json(const fs::path& path) { return nlohmann::json::parse(read_file(path)); }

inline ModelConfig golden_config(const std::string& name) {
  return parse_model_config(read_json(golden_folder(name) / "config.json"), name);
}

/// A model with one dense and two MoE layers, 4 experts, of DeepSeek-V3's family, not read from any file.
inline ModelConfig small_config() {
  ModelConfig config;
  config.architecture = "DeepseekV3ForCausalLM";
  config.model_type = "deepseek_v3";
  config.vocab_size = 40;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.moe_intermediate_size = 8;
  config.shared_intermediate_size = 8;
  config.num_experts = 4;
  config.top_k = 2;
  config.attention.kind = AttentionKind::mla;
  config.attention.num_heads = config.attention.num_kv_heads = 2;
  config.attention.kv_lora_rank = 8;
  config.attention.qk_nope_head_dim = 8;
  config.attention.qk_rope_head_dim = 4;
  config.attention.v_head_dim = 8;
  config.router.correction_bias = true;
  config.layers = {LayerKind::dense, LayerKind::moe, LayerKind::moe};
  return config;
}

/// A small Llama-4: experts stacked in the checkpoint, a dense layer between.
inline ModelConfig small_llama4_config(const char* architecture = "Llama4ForCausalLM") {
  ModelConfig config = small_config();
  config.architecture = architecture;
  config.model_type = "llama4_text";
  config.attention = {};
  config.attention.num_heads = 2;
  config.attention.num_kv_heads = 1;
  config.attention.qk_rope_head_dim = config.attention.v_head_dim = 8;
  config.router = {.scoring = Scoring::sigmoid, .by_logits = true, .weigh_input = true};
  config.top_k = 1;
  return config;
}

inline std::shared_ptr<const ParameterTable> make_table(const ModelConfig& config) {
  return std::make_shared<const ParameterTable>(config);
}

/// Expects an Error whose text has all the parts.
template <typename Action>
void expect_error(Action&& action, const std::vector<std::string>& parts) {
  try {
    action();
  } catch (const Error& error) {
    for (const auto& part : parts) EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
    return;
  }
  ADD_FAILURE() << "no Error, expected one with: " << (parts.empty() ? "anything" : parts[0]);
}

}  // namespace farskip::testing
