#pragma once
// What the tests of this folder share.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "config/model_config.h"

namespace farskip {

/// The text of the Error that `run` throws; a failure of the test where it throws none.
template <typename Run>
std::string error_of(Run&& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "an error was expected";
  return "";
}

inline std::filesystem::path source_dir() { return FARSKIP_SOURCE_DIR; }

/// The config.json of a preset of the source tree, to be spoilt by a test.
inline nlohmann::json preset_json(const std::string& name) {
  std::ifstream file(source_dir() / "presets" / name / "config.json");
  return nlohmann::json::parse(file);
}

inline ModelConfig preset(const std::string& name) { return parse_model_config(preset_json(name), name); }

}  // namespace farskip
