#pragma once
// What a checkpoint's config.json calls its model, so that nobody runs it under the wrong connectivity: a standard
// model has its family's names, which every tool knows; any other has names of its own, which tools refuse, and the
// modelling file that makes transformers run it.

#include <nlohmann/json.hpp>
#include <string_view>

#include "config/model_config.h"
#include "layer/connectivity.h"

namespace farskip {

/// The modelling file's name in a checkpoint, and its text (share/modeling_farskip.py).
inline constexpr const char* modeling_file_name = "modeling_farskip.py";
std::string_view modeling_source();

/// config.json of `model` with this connectivity: the keys it was read from, the connectivity's keys, and
///   standard                  architectures [Qwen3MoeForCausalLM], model_type qwen3_moe
///   any other                 architectures [FarSkipQwen3MoeForCausalLM], model_type farskip_qwen3_moe, and auto_map,
///                             which names the modelling file for transformers' trust_remote_code
///   Instella, AMD's own keys  InstellaMoEForCausalLM: a name that says to read these keys
/// Throws Error for a connectivity that no key holds, and where there is no modelling class for the family.
nlohmann::json export_config(const ModelConfig& model, const Connectivity& connectivity);

/// True where a config.json needs modeling_file_name beside it.
bool needs_modeling_file(const nlohmann::json& config);

}  // namespace farskip
