// Where model descriptions are found: folders, files and presets.

#include <fmt/ranges.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "config/checkpoint_folder.h"
#include "config/model_config.h"
#include "config/nearest_name.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

/// The folders that may hold presets, the first hit wins.
std::vector<fs::path> preset_roots() {
  std::vector<fs::path> roots;
  if (const char* folder = std::getenv("FARSKIP_PRESETS"); folder && *folder) roots.push_back(folder);
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  if (!program.empty()) {
    roots.push_back(program / "presets");
    roots.push_back(program / ".." / "share" / "farskip" / "presets");
  }
  roots.push_back(fs::path(FARSKIP_SOURCE_DIR) / "presets");
  return roots;
}

}  // namespace

std::string preset_path(const std::string& name) {
  for (const fs::path& root : preset_roots()) {
    const fs::path folder = root / name;
    if (!name.empty() && fs::is_regular_file(folder / "config.json")) return folder.lexically_normal().string();
  }
  const std::vector<std::string> names = preset_names();
  const std::string nearest = nearest_name(name, names);
  fail("\"{}\" is neither a folder with a config.json nor a preset{}; the presets are: {}", name,
       nearest.empty() ? "" : fmt::format(" (did you mean {}?)", nearest), fmt::join(names, ", "));
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const fs::path& root : preset_roots()) {
    std::error_code absent;
    for (const auto& entry : fs::directory_iterator(root, absent)) {
      if (fs::is_regular_file(entry.path() / "config.json")) names.push_back(entry.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

ModelConfig load_model_config(const std::string& model) {
  fs::path path = resolve_model_folder(model);
  if (fs::is_directory(path)) {
    path /= "config.json";
  } else if (!fs::is_regular_file(path)) {
    path = fs::path(preset_path(model)) / "config.json";
  }
  std::ifstream file(path);
  if (!file) fail("{}: cannot be opened; a model folder holds a config.json", path.string());
  try {
    return parse_model_config(nlohmann::json::parse(file), path.string());
  } catch (const nlohmann::json::parse_error& error) {
    fail("{}: not JSON: {}", path.string(), error.what());
  }
}

}  // namespace farskip
