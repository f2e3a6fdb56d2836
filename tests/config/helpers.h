#pragma once
// What the tests of this folder share.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "config/model_config.h"
#include "tests/base/error_of.h"

namespace farskip {

using testing::error_of;

inline std::filesystem::path source_dir() { return FARSKIP_SOURCE_DIR; }

/// The config.json of a preset of the source tree, to be spoilt by a test.
inline nlohmann::json preset_json(const std::string& name) {
  std::ifstream file(source_dir() / "presets" / name / "config.json");
  return nlohmann::json::parse(file);
}

inline ModelConfig preset(const std::string& name) { return parse_model_config(preset_json(name), name); }

}  // namespace farskip
