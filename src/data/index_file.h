#pragma once
// Index arrays that are computed once, lie in a file beside the data and are mapped ever after.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/files.h"

namespace farskip {

/// Where the index files of a data set lie unless data_cache_path names a folder (as Megatron has it).
inline std::string index_folder(const std::string& data_prefix) { return data_prefix + "/cache"; }

/// `count` values from byte `offset` on. REQUIRES: inside `bytes`, aligned.
template <typename T>
std::span<T> view_of(std::span<std::byte> bytes, int64_t offset, int64_t count) {
  return {reinterpret_cast<T*>(bytes.data() + offset), static_cast<size_t>(count)};
}

/// A read-only file of arrays, found again by what determines them. It may be deleted at any time; whoever needs it
/// next builds it anew.
class IndexFile {
 public:
  /// Fills the arrays; gets num_bytes zero bytes, aligned to a page.
  using Fill = std::function<void(std::span<std::byte>)>;

  IndexFile() = default;
  /// Maps FOLDER/HASH-NAME.index, where HASH (SHA-256, 32 digits) is that of `description`: one line per fact that
  /// determines the arrays, kept at the end of the file. Where it is missing or damaged, `fill` builds it in a shared
  /// map of a file aside, so that the memory needed does not grow with num_bytes. One process builds, the others of
  /// this machine wait for it. Throws Error where the folder cannot be made or written, naming data_cache_path.
  IndexFile(const std::string& folder, const std::string& name, const std::string& description, int64_t num_bytes,
            const Fill& fill);

  const std::string& path() const { return file_.path(); }
  /// As view_of.
  template <typename T>
  std::span<const T> array(int64_t offset, int64_t count) const {
    return {reinterpret_cast<const T*>(file_.data() + offset), static_cast<size_t>(count)};
  }

 private:
  MappedFile file_;
};

}  // namespace farskip
