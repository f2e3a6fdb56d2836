#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/progress.h"

namespace farskip {
namespace fs = std::filesystem;
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

std::string error_text(int error) { return std::generic_category().message(error); }

std::string folder_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

int open_retrying(const char* path, int flags, mode_t mode = 0) {
  int fd;
  do fd = ::open(path, flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

/// A name for the file aside that no other file has: attempt counts up until open or link accepts it.
std::string aside_name(const std::string& path, int attempt) {
  return fmt::format("{}/.{}.{}-{}.part", folder_of(path), fs::path(path).filename().string(), ::getpid(), attempt);
}

constexpr int kMaxAttempts = 1000;

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  std::error_code ignored;
  if (fs::is_symlink(path_, ignored)) path_ = fs::weakly_canonical(path_, ignored).string();
  const fs::file_status status = fs::status(path_, ignored);
  if (fs::is_directory(status)) fail("cannot write {}: it is a folder; give the name of a file", path_);
  const std::string folder = folder_of(path_);
  if (!fs::is_directory(folder, ignored))
    fail("cannot write {}: the folder {} does not exist; create it", path_, folder);
  direct_ = fs::exists(status) && !fs::is_regular_file(status);
  if (direct_) {
    fd_ = open_retrying(path_.c_str(), O_WRONLY);
  } else {
    // A file without a name vanishes even when the process is killed; not every file system has them.
    fd_ = open_retrying(folder.c_str(), O_TMPFILE | O_RDWR, 0666);
    for (int attempt = 0; fd_ < 0 && attempt < kMaxAttempts; ++attempt) {
      aside_ = aside_name(path_, attempt);
      fd_ = open_retrying(aside_.c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
      if (fd_ < 0 && errno != EEXIST) break;
    }
  }
  if (fd_ < 0) {
    aside_.clear();
    fail_io("create");
  }
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (!mapped_.empty()) ::munmap(mapped_.data(), mapped_.size());
  if (fd_ >= 0) ::close(fd_);
  if (!aside_.empty()) ::unlink(aside_.c_str());
}

void AtomicFile::fail_io(const char* action) const {
  const int error = errno;
  if (error == ENOSPC || error == EDQUOT) {
    fail("cannot {} {}: {} after {} written, {} free; make room or choose another folder (nothing was left behind)",
         action, path_, error_text(error), format_bytes(size_), format_bytes(free_bytes(path_)));
  }
  if (error == EFBIG) {
    fail("cannot {} {}: {} after {} written; raise the limit on file sizes (ulimit -f) or choose another file system",
         action, path_, error_text(error), format_bytes(size_));
  }
  fail("cannot {} {}: {}", action, path_, error_text(error));
}

void AtomicFile::write_through(const char* data, size_t num_bytes) {
  while (num_bytes > 0) {
    const ssize_t written = ::write(fd_, data, num_bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail_io("write");
    }
    data += written;
    num_bytes -= static_cast<size_t>(written);
    size_ += written;
  }
}

void AtomicFile::flush() {
  if (!mapped_.empty()) return;                   // fsync writes the pages of a shared map
  size_ -= static_cast<int64_t>(buffer_.size());  // write_through counts what really went out
  write_through(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void AtomicFile::write(const void* data, size_t num_bytes) {
  FARSKIP_CHECK(fd_ >= 0 && mapped_.empty(), "write after commit or map");
  if (buffer_.size() + num_bytes > kBufferBytes) flush();
  if (num_bytes >= kBufferBytes) {
    write_through(static_cast<const char*>(data), num_bytes);
    return;
  }
  buffer_.append(static_cast<const char*>(data), num_bytes);
  size_ += static_cast<int64_t>(num_bytes);
}

std::span<std::byte> AtomicFile::map(int64_t num_bytes) {
  FARSKIP_CHECK(fd_ >= 0 && size_ == 0 && mapped_.empty() && num_bytes > 0);
  if (direct_) fail("cannot map {}: it is not a regular file", path_);
  // Reserved now: a full disk under a map would end the process with SIGBUS.
  do errno = ::posix_fallocate(fd_, 0, num_bytes);
  while (errno == EINTR);
  if (errno != 0) fail_io("reserve room for");
  void* address = ::mmap(nullptr, static_cast<size_t>(num_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (address == MAP_FAILED) fail_io("map");
  size_ = num_bytes;
  mapped_ = {static_cast<std::byte*>(address), static_cast<size_t>(num_bytes)};
  return mapped_;
}

/// Links a nameless file to a hidden name, from which rename can replace an existing file.
void AtomicFile::give_name() {
  const std::string self = fmt::format("/proc/self/fd/{}", fd_);
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const std::string name = aside_name(path_, attempt);
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      aside_ = name;
      return;
    }
    if (errno != EEXIST) break;
  }
  fail_io("name");
}

void AtomicFile::sync() {
  FARSKIP_CHECK(fd_ >= 0, "sync after commit");
  flush();
  if (!direct_ && ::fsync(fd_) != 0) fail_io("write");
}

void AtomicFile::commit() {
  sync();
  if (!direct_ && aside_.empty()) give_name();
  if (::close(std::exchange(fd_, -1)) != 0) fail_io("write");
  if (direct_) return;
  if (::rename(aside_.c_str(), path_.c_str()) != 0) fail_io("rename to");
  aside_.clear();
  // The name is durable once the folder is; a file system that cannot say so (EINVAL) has done what it can.
  const int folder = open_retrying(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = open_retrying(path.c_str(), O_RDONLY);
  if (fd < 0) fail("cannot open {}: {}", path, error_text(errno));
  struct stat status;
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    fail("cannot map {}: it is not a regular file", path);
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int error = errno;
    if (address == MAP_FAILED) {
      ::close(fd);
      fail("cannot map {} ({}): {}", path, format_bytes(static_cast<int64_t>(size_)), error_text(error));
    }
    data_ = static_cast<const std::byte*>(address);
  }
  ::close(fd);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::string read_file(const std::string& path) {
  const int fd = open_retrying(path.c_str(), O_RDONLY);
  if (fd < 0) fail("cannot open {}: {}", path, error_text(errno));
  std::string contents;
  std::string block(kBufferBytes, '\0');
  for (;;) {
    const ssize_t num_read = ::read(fd, block.data(), block.size());
    if (num_read < 0 && errno == EINTR) continue;
    if (num_read < 0) {
      const int error = errno;
      ::close(fd);
      fail("cannot read {}: {}", path, error_text(error));
    }
    if (num_read == 0) break;
    contents.append(block.data(), static_cast<size_t>(num_read));
  }
  ::close(fd);
  return contents;
}

void write_file(const std::string& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents);
  file.commit();
}

void create_parent_folders(const std::string& path) {
  std::error_code error;
  const std::string folder = folder_of(path);
  fs::create_directories(folder, error);
  if (error && !fs::is_directory(folder)) fail("cannot create the folder {}: {}", folder, error.message());
}

int64_t free_bytes(const std::string& path) {
  struct statvfs status;
  if (::statvfs(folder_of(path).c_str(), &status) != 0) return -1;
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

}  // namespace farskip
