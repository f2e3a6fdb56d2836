#include "model/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <algorithm>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/process_memory.h"

namespace farskip {

namespace fs = std::filesystem;

SafetensorsReader::SafetensorsReader(const std::string& path) : source_(path) {
  std::error_code ignored;  // whatever hinders us here is reported when the file is opened
  if (!fs::is_directory(path, ignored)) {
    fs::path(path).extension() == ".json" ? add_index(path) : add_file(path);
    return;
  }
  const fs::path folder(path);
  if (fs::exists(folder / safetensors_file_name, ignored)) {
    add_file(folder / safetensors_file_name);
  } else if (fs::exists(folder / safetensors_index_name, ignored)) {
    add_index(folder / safetensors_index_name);
  } else {
    fail("{}: holds neither {} nor {}", path, safetensors_file_name, safetensors_index_name);
  }
}

void SafetensorsReader::add_file(const std::string& path) {
  const auto file = std::make_shared<const MappedFile>(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file->data()), static_cast<size_t>(file->size()));
  const SafetensorsHeader header = parse_safetensors_header(bytes, path);
  for (const auto& entry : header.entries) {
    const Place place{file, entry.spec, header.data_begin + entry.begin};
    const auto [other, added] = tensors_.emplace(entry.spec.name, place);
    if (!added) fail("tensor {} is in both {} and {}", entry.spec.name, other->second.file->path(), path);
  }
  metadata_.insert(header.metadata.begin(), header.metadata.end());
}

void SafetensorsReader::add_index(const std::string& path) {
  std::map<std::string, std::string> weight_map;
  try {
    weight_map = nlohmann::json::parse(read_file(path)).at("weight_map").get<std::map<std::string, std::string>>();
  } catch (const nlohmann::json::exception& error) {
    fail("{}: no index of safetensors files (expected \"weight_map\": {{tensor: file}}): {}", path, error.what());
  }
  std::set<std::string> files;
  for (const auto& [name, file] : weight_map) files.insert(file);
  for (const auto& file : files) {
    // An index names files beside itself; anything else could make us read arbitrary files.
    if (file.empty() || fs::path(file).filename() != file || file == "." || file == "..") {
      fail("{}: \"{}\" is not the name of a file in the index's folder", path, file);
    }
    add_file(fs::path(path).parent_path() / file);
  }
  for (const auto& [name, file] : weight_map) {
    const auto found = tensors_.find(name);
    const std::string where = found == tensors_.end()
                                  ? "in none of its files"
                                  : "in " + fs::path(found->second.file->path()).filename().string();
    if (where != "in " + file) fail("{}: tensor {} should be in {}, but is {}", path, name, file, where);
  }
  for (const auto& [name, place] : tensors_) {
    if (!weight_map.count(name)) fail("{}: tensor {} of {} is not in the index", path, name, place.file->path());
  }
}

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : tensors_) names.push_back(name);
  return names;
}

const SafetensorsReader::Place& SafetensorsReader::place(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail("{}: no tensor {} among its {}", source_, name, tensors_.size());
  return found->second;
}

const TensorSpec& SafetensorsReader::spec(const std::string& name) const { return place(name).spec; }

at::Tensor SafetensorsReader::tensor(const std::string& name) const { return map(place(name)); }

at::Tensor SafetensorsReader::slice(const std::string& name, int64_t index) const {
  Place found = place(name);
  auto& shape = found.spec.shape;
  FARSKIP_CHECK(!shape.empty() && index >= 0 && index < shape[0], "no such slice of " + name);
  shape.erase(shape.begin());
  found.begin += static_cast<uint64_t>(index) * found.spec.num_bytes();
  return map(found);
}

at::Tensor SafetensorsReader::map(const Place& found) const {
  bytes_read_ += found.spec.num_bytes();
  const auto options = at::TensorOptions().dtype(found.spec.dtype);
  void* bytes = const_cast<std::byte*>(found.file->data()) + found.begin;  // from_blob knows no read-only tensor
  if (found.spec.dtype == at::kBool) {  // any byte but 0 is true; a C++ bool may only be 0 or 1
    return at::from_blob(bytes, found.spec.shape, at::kByte).to(at::kBool);
  }
  if (found.spec.num_bytes() == 0) return at::empty(found.spec.shape, options);
  if (reinterpret_cast<uintptr_t>(bytes) % c10::elementSize(found.spec.dtype) != 0) {
    const at::Tensor copy = at::empty(found.spec.shape, options);
    std::memcpy(copy.mutable_data_ptr(), bytes, found.spec.num_bytes());
    return copy;
  }
  const auto keep_mapped = [file = found.file](void*) {};
  return at::from_blob(bytes, found.spec.shape, keep_mapped, options);
}

void SafetensorsReader::release(const std::string& name) const {
  const Place& found = place(name);
  // Reading one tensor maps what stands around it in the file again (up to a large page), neighbours that have
  // been released among it.
  constexpr uint64_t window = 2 << 20;
  const uint64_t begin = found.begin - std::min(found.begin, window);
  const uint64_t end = std::min<uint64_t>(found.begin + found.spec.num_bytes() + window, found.file->size());
  release_mapped(found.file->data() + begin, end - begin);
}

uint64_t SafetensorsReader::bytes_in_all() const {
  uint64_t bytes = 0;
  for (const auto& [name, place] : tensors_) bytes += place.spec.num_bytes();
  return bytes;
}

}  // namespace farskip
