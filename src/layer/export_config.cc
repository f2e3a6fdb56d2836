#include "layer/export_config.h"

#include <string>

#include "base/error.h"
#include "config/families.h"

namespace farskip {
namespace {

constexpr std::string_view class_suffix = "ForCausalLM";

/// AMD's model reads AMD's keys, but not ours.
bool names_its_connectivity(const ModelConfig& model, const nlohmann::json& config) {
  return model.architecture == "InstellaMoEForCausalLM" && !config.contains("farskip_skip");
}

}  // namespace

nlohmann::json export_config(const ModelConfig& model, const Connectivity& connectivity) {
  nlohmann::json config = model.raw;
  connectivity.to_config(config);
  config.erase("quantization_config");  // weights are written as plain numbers
  if (needs_modeling_file(config)) config.erase("auto_map");
  config["architectures"] = {model.architecture};
  config["model_type"] = model.model_type;
  if (connectivity.is_standard() || names_its_connectivity(model, config)) return config;

  if (!model.architecture.ends_with(class_suffix)) {
    fail("connectivity {}: there is no modelling class of {} for it, only of classes ...{}", connectivity.to_string(),
         model.architecture, class_suffix);
  }
  const std::string name = own_architecture_prefix + model.architecture;
  const std::string stem = name.substr(0, name.size() - class_suffix.size());
  config["architectures"] = {name};
  config["model_type"] = own_model_type_prefix + model.model_type;
  config["auto_map"] = {{"AutoConfig", "modeling_farskip." + stem + "Config"},
                        {"AutoModelForCausalLM", "modeling_farskip." + name}};
  return config;
}

bool needs_modeling_file(const nlohmann::json& config) {
  const auto map = config.find("auto_map");
  if (map == config.end() || !map->is_object()) return false;
  const auto model = map->find("AutoModelForCausalLM");
  return model != map->end() && model->is_string() && model->get<std::string>().starts_with("modeling_farskip.");
}

}  // namespace farskip
