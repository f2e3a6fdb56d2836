#pragma once
// The golden models that inference is tested on, where they lie beside the source tree.

#include <string>
#include <vector>

namespace farskip::testing {

inline const std::vector<std::string> families = {
    "deepseek_v2_lite", "deepseek_v2_group", "deepseek_v2_yarn", "deepseek_v3", "deepseek_v3_farskip",
    "moonlight",        "instella_full",     "instella_off",     "qwen3_moe",   "qwen3_moe_farskip",
    "llama4",           "llama4_farskip",    "mixtral",          "olmoe"};

inline std::string golden(const std::string& name) { return FARSKIP_SOURCE_DIR "/../shared/golden/" + name; }

}  // namespace farskip::testing
