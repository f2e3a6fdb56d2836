#include "model/fingerprint.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/sha256.h"
#include "model/safetensors.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr int64_t whole_below = int64_t{64} << 20;
constexpr int64_t num_sampled = 256, block_bytes = int64_t{64} << 10;

void add(Sha256& sha, const std::string& text) { sha.update(text.data(), text.size()); }

/// Of a large file the header, which begins with its own length, and blocks.
void add_content(Sha256& sha, const MappedFile& file) {
  const int64_t size = file.size();
  if (size <= whole_below) return sha.update(file.data(), static_cast<size_t>(size));
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | std::to_integer<uint64_t>(file.data()[i]);
  sha.update(file.data(), static_cast<size_t>(std::min<uint64_t>(header + 8, static_cast<uint64_t>(size))));
  for (int64_t i = 0; i < num_sampled; ++i) {
    sha.update(file.data() + (size - block_bytes) / (num_sampled - 1) * i, block_bytes);
  }
}

/// Those of the index, or the only one.
std::set<std::string> files_of(const std::string& folder) {
  const std::string index = folder + "/" + safetensors_index_name;
  if (!fs::exists(index)) {
    if (fs::exists(folder + "/" + safetensors_file_name)) return {safetensors_file_name};
    fail("{}: neither {} nor {} is there; a checkpoint is a Hugging Face folder", folder, safetensors_file_name,
         safetensors_index_name);
  }
  std::set<std::string> names;
  const auto json = nlohmann::json::parse(read_file(index), nullptr, false);
  if (json.is_object() && json.contains("weight_map") && json["weight_map"].is_object()) {
    for (const auto& [tensor, file] : json["weight_map"].items()) {
      if (file.is_string()) names.insert(file.get<std::string>());
    }
  }
  if (names.empty()) fail("{}: no weight_map with names of files; the index is damaged", index);
  return names;
}

}  // namespace

std::string checkpoint_fingerprint(const std::string& folder) {
  const std::set<std::string> names = files_of(folder);
  Sha256 sha;
  add(sha, read_file(folder + "/config.json"));
  for (const std::string& name : names) {
    const MappedFile file(folder + "/" + name);
    add(sha, fmt::format("\n{} {}\n", name, file.size()));
    add_content(sha, file);
  }
  return sha.hex();
}

}  // namespace farskip
