#pragma once
// Writes safetensors, one file or several with an index. Files appear complete or not at all.

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "model/safetensors_header.h"

namespace farskip {

/// One file. Its tensors are declared at once and written one by one, in the order declared, so that no more than one
/// needs to be in memory. Without commit() nothing is left.
class SafetensorsWriter {
 public:
  /// Throws Error where the file cannot be made, and for the reasons of layout_safetensors.
  SafetensorsWriter(const std::string& path, std::vector<TensorSpec> specs);

  /// Writes the next tensor, or its next rows (of the first dimension), from any device; values are converted to the
  /// declared dtype. Throws Error for a name or shape other than declared, and where the system cannot write (a full
  /// disk).
  void write(const std::string& name, const at::Tensor& tensor);
  /// Flushes to the disk and gives the file its name. Throws Error where declared tensors were not written.
  void commit();
  bool complete() const { return next_ == entries_.size(); }

 private:
  AtomicFile file_;
  std::vector<TensorEntry> entries_;
  size_t next_ = 0;
  int64_t rows_ = 0;  ///< of the next tensor that are written
};

/// Writes `tensors` as one file, in the order of the format's own library: larger dtypes first, then by name.
void save_safetensors(const std::string& path, std::vector<std::pair<std::string, at::Tensor>> tensors);

/// A folder's tensors: model.safetensors, or, where they are larger than `max_shard_bytes`, files
/// model-00001-of-0000N.safetensors with model.safetensors.index.json. A tensor larger than the limit gets a file of
/// its own.
class ShardedWriter {
 public:
  /// REQUIRES: at least one tensor.
  ShardedWriter(std::string folder, const std::vector<TensorSpec>& specs, uint64_t max_shard_bytes);

  /// Writes the next tensor or its next rows, see SafetensorsWriter::write.
  void write(const std::string& name, const at::Tensor& tensor);
  /// Writes the index. Throws Error where declared tensors were not written.
  void commit();

 private:
  struct Shard {
    std::string file;
    std::vector<TensorSpec> specs;
  };

  std::string path(const std::string& file) const { return folder_ + "/" + file; }

  std::string folder_;
  std::vector<Shard> shards_;
  size_t current_ = 0;  ///< index of the shard being written
  std::unique_ptr<SafetensorsWriter> writer_;
};

}  // namespace farskip
