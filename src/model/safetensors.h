#pragma once
// Reads safetensors: a file, or a checkpoint of several files with model.safetensors.index.json.

#include <ATen/core/Tensor.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "model/safetensors_header.h"

namespace farskip {

/// The names that Hugging Face folders use.
inline constexpr const char* safetensors_file_name = "model.safetensors";
inline constexpr const char* safetensors_index_name = "model.safetensors.index.json";

/// The tensors of a file or of a folder. Files are mapped, not read: opening a checkpoint of any size costs its
/// headers.
class SafetensorsReader {
 public:
  /// `path`: a .safetensors file, an index (.json), or a folder that holds model.safetensors or
  /// model.safetensors.index.json. Throws Error for whatever parse_safetensors_header refuses, for an index that
  /// disagrees with its files, and for files named outside its folder.
  explicit SafetensorsReader(const std::string& path);

  /// What the reader was opened with, for messages.
  const std::string& source() const { return source_; }
  /// All names, sorted.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return tensors_.count(name) > 0; }
  /// Dtype and shape. Throws Error where there is no such tensor.
  const TensorSpec& spec(const std::string& name) const;
  /// The tensor on the CPU, as a read-only view of the mapped file, which stays mapped while the tensor lives. Writing
  /// to it is an error that ends the process: clone first. (Booleans and misaligned tensors are copies.)
  at::Tensor tensor(const std::string& name) const;
  /// tensor(name)[index], of which alone the bytes are read.
  at::Tensor slice(const std::string& name, int64_t index) const;
  /// To be told when a tensor, or a slice of it, has been used: its pages need no memory of this process until it is
  /// asked for again.
  void release(const std::string& name) const;
  /// Bytes of all tensors and slices that have been given, each time they were.
  uint64_t bytes_read() const { return bytes_read_; }
  /// Bytes of all tensors.
  uint64_t bytes_in_all() const;
  /// __metadata__ of the files, merged.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  struct Place {
    std::shared_ptr<const MappedFile> file;
    TensorSpec spec;
    uint64_t begin;  ///< in the file
  };

  /// Adds the tensors of one file.
  void add_file(const std::string& path);
  void add_index(const std::string& path);
  const Place& place(const std::string& name) const;
  at::Tensor map(const Place& place) const;

  std::string source_;
  std::map<std::string, Place> tensors_;
  std::map<std::string, std::string> metadata_;
  mutable std::atomic<uint64_t> bytes_read_ = 0;
};

}  // namespace farskip
