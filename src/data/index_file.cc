#include "data/index_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/sha256.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

/// Holds other processes of this machine off while one builds. Only saves work: where a file system knows no locks,
/// several build the same file and the last rename wins.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder) : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (fd_ >= 0) ::flock(fd_, LOCK_EX);
  }
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

std::string hash_of(const std::string& description) {
  Sha256 hash;
  hash.update(description.data(), description.size());
  return hash.hex().substr(0, 32);
}

/// Whether `file` is what `description` promises.
bool is_complete(const MappedFile& file, const std::string& description, int64_t num_bytes) {
  return file.size() == num_bytes + static_cast<int64_t>(description.size()) &&
         std::memcmp(file.data() + num_bytes, description.data(), description.size()) == 0;
}

void build(const std::string& path, const std::string& description, int64_t num_bytes, const IndexFile::Fill& fill) {
  AtomicFile file(path);
  const std::span<std::byte> bytes = file.map(num_bytes + static_cast<int64_t>(description.size()));
  fill(bytes.first(static_cast<size_t>(num_bytes)));
  std::memcpy(bytes.data() + num_bytes, description.data(), description.size());
  file.commit();
}

}  // namespace

IndexFile::IndexFile(const std::string& folder, const std::string& name, const std::string& description,
                     int64_t num_bytes, const Fill& fill) {
  FARSKIP_CHECK(num_bytes > 0 && !description.empty());
  const std::string path = fmt::format("{}/{}-{}.index", folder, hash_of(description), name);
  const auto open = [&] {
    if (!fs::exists(path)) return false;
    MappedFile file(path);
    if (!is_complete(file, description, num_bytes)) return false;
    file_ = std::move(file);
    return true;
  };
  if (open()) return;
  try {
    create_parent_folders(path);
    const FolderLock lock(folder);
    if (open()) return;
    build(path, description, num_bytes, fill);
  } catch (const Error& error) {
    fail("{} (index arrays are kept in files beside the data; data_cache_path names another folder)", error.what());
  }
  FARSKIP_CHECK(open(), path);
}

}  // namespace farskip
