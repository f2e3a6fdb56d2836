#include "config/checkpoint_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/sha256.h"

namespace farskip {

namespace fs = std::filesystem;

namespace {

constexpr const char* latest_name = "latest_checkpointed_iteration.txt";
constexpr const char* prefix = "iter_";

/// The number of "iter_0000100"; -1 for any other name.
int64_t iteration_of(const std::string& name) {
  if (!name.starts_with(prefix)) return -1;
  int64_t iteration = -1;
  const char* begin = name.data() + std::strlen(prefix);
  const char* end = name.data() + name.size();
  return std::from_chars(begin, end, iteration).ptr == end && begin != end ? iteration : -1;
}

/// Renames and deletions in a folder are durable after this.
void sync_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

std::string iteration_folder(const std::string& root, int64_t iteration) {
  return fmt::format("{}/{}{:07}", root, prefix, iteration);
}

std::string partial_folder(const std::string& root, int64_t iteration) {
  return iteration_folder(root, iteration) + ".partial";
}

int64_t latest_iteration(const std::string& root) {
  const fs::path path = fs::path(root) / latest_name;
  if (!fs::is_regular_file(path)) return -1;
  const std::string text = read_file(path.string());
  int64_t iteration = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), iteration);
  if (error != std::errc() || iteration < 0 ||
      std::string(end, text.data() + text.size()).find_first_not_of(" \n") != std::string::npos) {
    fail("{}: \"{}\" is not an iteration; write the number of one of the folders {}*, or remove the file",
         path.string(), text.substr(0, 40), prefix);
  }
  return iteration;
}

std::vector<int64_t> checkpoint_iterations(const std::string& root) {
  std::vector<int64_t> iterations;
  const int64_t latest = latest_iteration(root);
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(root, absent)) {
    const int64_t iteration = iteration_of(entry.path().filename());
    if (iteration >= 0 && (latest < 0 || iteration <= latest) && entry.is_directory()) iterations.push_back(iteration);
  }
  std::sort(iterations.rbegin(), iterations.rend());
  return iterations;
}

bool is_checkpoint_root(const std::string& folder) {
  if (fs::exists(fs::path(folder) / "config.json")) return false;
  return latest_iteration(folder) >= 0 || !checkpoint_iterations(folder).empty();
}

std::string resolve_model_folder(const std::string& path) {
  if (!is_checkpoint_root(path)) return path;
  const auto iterations = checkpoint_iterations(path);
  if (iterations.empty()) {
    fail("{}: {} says {}, but there is no checkpoint up to it", path, latest_name, latest_iteration(path));
  }
  return iteration_folder(path, iterations.front());
}

nlohmann::json read_training_state(const std::string& folder) {
  const std::string path = folder + "/" + training_state_name;
  try {
    return nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::parse_error& error) {
    fail("{}: not JSON: {}", path, error.what());
  }
}

nlohmann::json file_record(const std::string& path) {
  const MappedFile file(path);
  Sha256 sum;
  sum.update(file.data(), static_cast<size_t>(file.size()));
  return {{"bytes", file.size()}, {"sha256", sum.hex()}};
}

std::string file_problem(const std::string& folder, const std::string& name, const nlohmann::json& record) {
  const std::string path = folder + "/" + name;
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return fmt::format("{} is missing", path);
  const auto expected = record.at("bytes").get<uint64_t>();
  if (size != expected) return fmt::format("{} has {} bytes instead of {}", path, size, expected);
  const nlohmann::json found = file_record(path);
  if (found != record) {
    return fmt::format("{} was altered: its SHA-256 is {}, not {}", path, found["sha256"].get<std::string>(),
                       record["sha256"].get<std::string>());
  }
  return "";
}

void publish_checkpoint(const std::string& root, int64_t iteration, int64_t keep) {
  const std::string partial = partial_folder(root, iteration), folder = iteration_folder(root, iteration);
  sync_folder(partial);
  if (fs::exists(folder)) {  // a run that went back to an older checkpoint comes by again
    const std::string old = folder + ".old";
    fs::remove_all(old);
    fs::rename(folder, old);
  }
  if (::rename(partial.c_str(), folder.c_str()) != 0) {
    fail("{}: renaming to {} failed: {}", partial, folder, std::strerror(errno));
  }
  sync_folder(root);
  write_file(root + "/" + latest_name, std::to_string(iteration) + "\n");
  std::error_code ignored;
  fs::remove_all(folder + ".old", ignored);
  const auto iterations = checkpoint_iterations(root);
  for (size_t i = static_cast<size_t>(keep); keep > 0 && i < iterations.size(); ++i) {
    fs::remove_all(iteration_folder(root, iterations[i]), ignored);
  }
}

void remove_partial_checkpoints(const std::string& root) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(root, ignored)) {
    const fs::path name = entry.path().filename();
    const bool left = name.extension() == ".partial" || name.extension() == ".old";
    if (left && iteration_of(name.stem()) >= 0) fs::remove_all(entry.path(), ignored);
  }
}

}  // namespace farskip
