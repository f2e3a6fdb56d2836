// Names of exported models: a connectivity that other tools do not know is never under a name that they know.

#include "layer/export_config.h"

#include <gmock/gmock.h>

#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using nlohmann::json;
using testing::error_of;
using ::testing::HasSubstr;

ModelConfig preset(const std::string& name) { return load_model_config(name); }

json exported(const ModelConfig& model, const std::string& connectivity) {
  return export_config(model, Connectivity::parse(connectivity, model.num_layers()));
}

TEST(ExportConfig, StandardModelsKeepTheNamesThatEveryToolKnows) {
  const json config = exported(preset("qwen3-30b-a3b"), "standard");
  EXPECT_EQ(config["architectures"], json({"Qwen3MoeForCausalLM"}));
  EXPECT_EQ(config["model_type"], "qwen3_moe");
  EXPECT_EQ(config["farskip"], false);
  EXPECT_FALSE(config.contains("auto_map"));
  EXPECT_FALSE(needs_modeling_file(config));
}

TEST(ExportConfig, OtherConnectivitiesHaveNamesOfTheirOwnAndCode) {
  for (const std::string connectivity : {"farskip", "attn-only", "mlp-only", "last=3", "layers=4-9", "skip=2,1,0"}) {
    const ModelConfig model = preset("qwen3-30b-a3b");
    const json config = exported(model, connectivity);
    EXPECT_EQ(config["architectures"], json({"FarSkipQwen3MoeForCausalLM"})) << connectivity;
    EXPECT_EQ(config["model_type"], "farskip_qwen3_moe");
    EXPECT_EQ(config["auto_map"], (json{{"AutoConfig", "modeling_farskip.FarSkipQwen3MoeConfig"},
                                        {"AutoModelForCausalLM", "modeling_farskip.FarSkipQwen3MoeForCausalLM"}}));
    EXPECT_TRUE(needs_modeling_file(config));
    EXPECT_EQ(Connectivity::from_config(config, model.num_layers()).to_string(), connectivity);
  }
}

TEST(ExportConfig, WhatWasExportedIsReadAsItsFamily) {
  for (const std::string name :
       {"deepseek-v2-lite", "moonlight-16b-a3b", "qwen3-30b-a3b", "mixtral-8x7b", "olmoe-1b-7b"}) {
    const ModelConfig model = preset(name);
    const json config = exported(model, "farskip");
    const ModelConfig again = parse_model_config(config, name);
    EXPECT_EQ(again.architecture, model.architecture);
    EXPECT_EQ(again.model_type, model.model_type);
    EXPECT_EQ(again.num_parameters(), model.num_parameters());
    EXPECT_EQ(exported(again, "farskip"), config) << name << ": exporting twice changes nothing";
    json back = exported(again, "standard");
    EXPECT_EQ(back["architectures"], json({model.architecture})) << "and the way back is open";
    EXPECT_FALSE(back.contains("auto_map"));
  }
}

TEST(ExportConfig, InstellaKeepsItsNameWhereAmdsKeysSayEverything) {
  const ModelConfig model = preset("instella-moe-16b-a3b");
  for (const std::string connectivity : {"farskip", "attn-only", "mlp-only", "last=3", "standard"}) {
    const json config = exported(model, connectivity);
    EXPECT_EQ(config["architectures"], json({"InstellaMoEForCausalLM"})) << connectivity;
    EXPECT_EQ(config["model_type"], "deepseek_v3");
    EXPECT_FALSE(needs_modeling_file(config));
  }
  EXPECT_EQ(exported(model, "skip=2,1,0")["architectures"], json({"FarSkipInstellaMoEForCausalLM"}))
      << "AMD's code does not read our key";
}

TEST(ExportConfig, CodeOfOthersIsKeptForStandardModelsOnly) {
  ModelConfig model = preset("deepseek-v2-lite");
  const json map = {{"AutoModelForCausalLM", "modeling_deepseek.DeepseekV2ForCausalLM"}};
  model.raw["auto_map"] = map;
  EXPECT_EQ(exported(model, "standard")["auto_map"], map);
  EXPECT_EQ(exported(model, "farskip")["auto_map"]["AutoModelForCausalLM"],
            "modeling_farskip.FarSkipDeepseekV2ForCausalLM");
}

TEST(ExportConfig, RefusesWhatNoFileCanSay) {
  const ModelConfig model = preset("qwen3-30b-a3b");
  std::vector<Skip> mixed(model.num_layers(), standard_skip);
  mixed[1] = farskip_skip;
  mixed[3] = mlp_only_skip;
  EXPECT_THAT(error_of([&] { export_config(model, Connectivity(mixed)); }), HasSubstr("cannot be written"));
  ModelConfig pictures = model;
  pictures.architecture = "Llama4ForConditionalGeneration";
  EXPECT_THAT(error_of([&] { exported(pictures, "farskip"); }), HasSubstr("no modelling class"));
}

TEST(ExportConfig, TheModellingFileHasTheClassesThatConfigsName) {
  const std::string source(modeling_source());
  for (const std::string name : {"deepseek-v2-lite", "deepseek-v3", "qwen3-30b-a3b", "mixtral-8x7b", "olmoe-1b-7b"}) {
    const json map = exported(preset(name), "farskip")["auto_map"];
    for (const auto& [key, value] : map.items()) {
      const std::string text = value.get<std::string>();
      EXPECT_THAT(source, HasSubstr("class " + text.substr(text.find('.') + 1) + "(")) << key;
    }
  }
  EXPECT_THAT(source, HasSubstr("class FarSkipInstellaMoEForCausalLM("));
}

}  // namespace
}  // namespace farskip
