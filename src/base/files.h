#pragma once
// Files: output is written aside and renamed when complete, input is read whole or mapped.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace farskip {

/// A file that exists under its name only when it is complete: bytes go to a nameless (or hidden) file in the same
/// folder, commit() makes them durable and gives them the name, replacing what was there. Destroyed without commit()
/// (an error, an interrupted run) it leaves nothing. Where `path` is a device or a pipe (/dev/stdout), bytes go
/// straight to it; where it is a link, the file it points to is replaced. Every failure throws Error naming the path; a
/// full disk says how much is free. Not thread-safe.
class AtomicFile {
 public:
  /// The folder of `path` must exist (see create_parent_folders).
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends; buffered.
  void write(const void* data, size_t num_bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Instead of write(): gives the file this size (> 0), reserved on the disk, and maps it to be filled in any order.
  /// The map is shared, so the system may move pages to the disk at any time. Valid until destruction. Throws Error
  /// where `path` is no regular file, too. REQUIRES: nothing written, mapped once.
  std::span<std::byte> map(int64_t num_bytes);
  /// Bytes written so far.
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  /// Everything written is on the disk (so that commit() can hardly fail), still without the name.
  void sync();
  /// sync(), rename, fsync of the folder. REQUIRES: not yet committed.
  void commit();

 private:
  void flush();
  void write_through(const char* data, size_t num_bytes);
  void give_name();
  [[noreturn]] void fail_io(const char* action) const;

  std::string path_;
  std::string aside_;  ///< hidden name beside path_; empty while the file has none
  std::string buffer_;
  int64_t size_ = 0;
  std::span<std::byte> mapped_;
  int fd_ = -1;
  bool direct_ = false;  ///< path_ is not a regular file
};

/// Read-only memory map of a whole file. Movable; an empty file is an empty span.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return static_cast<int64_t>(size_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole file (pipes too). Throws Error.
std::string read_file(const std::string& path);
/// AtomicFile in one call.
void write_file(const std::string& path, std::string_view contents);
/// Creates the folders above `path`, like mkdir -p. Throws Error.
void create_parent_folders(const std::string& path);
/// Bytes free for this user on the file system that holds `path` (which need not exist, its folder must); -1 if
/// unknown.
int64_t free_bytes(const std::string& path);

}  // namespace farskip
