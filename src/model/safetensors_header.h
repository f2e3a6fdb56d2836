#pragma once
// The header of a safetensors file (https://github.com/huggingface/safetensors): eight bytes with its length, little
// endian, then JSON that gives each tensor's dtype, shape and place in the bytes that follow.

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace farskip {

/// A tensor's name, dtype and shape: all that the place of its bytes follows from.
struct TensorSpec {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;

  uint64_t num_bytes() const;
  bool operator==(const TensorSpec&) const = default;
};

/// A tensor in a file: bytes [begin, end) counted from the end of the header.
struct TensorEntry {
  TensorSpec spec;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<TensorEntry> entries;  ///< in the order of their bytes, without holes
  uint64_t data_begin = 0;           ///< where the tensors' bytes begin in the file
};

/// "F32", "BF16", ...; throws Error for a dtype that safetensors or this program does not have.
std::string_view safetensors_dtype(at::ScalarType dtype);

/// Reads the header at the front of `file`, the bytes of a whole file; `source` names it in errors. Throws Error,
/// naming the tensor and both numbers, for anything but a complete and consistent file: a length that does not fit,
/// text that is not JSON, unknown dtypes, shapes that are negative or overflow, sizes that disagree with shapes, names
/// that come twice, tensors that overlap, holes, missing or superfluous bytes at the end.
SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& source);

/// Lays the tensors out one after the other. Throws Error for a name that comes twice, and for an order in which a
/// tensor would be misaligned (larger dtypes must come first), because other programs cannot map such a file.
SafetensorsHeader layout_safetensors(std::vector<TensorSpec> specs, std::map<std::string, std::string> metadata);

/// The bytes before the tensors': length and JSON, padded with spaces to a multiple of eight.
std::string format_safetensors_header(const SafetensorsHeader& header);

/// "[2, 17, 32]"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace farskip
