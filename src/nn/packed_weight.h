#pragma once
// Weights in panels of 64 of their rows, as tiles read them (nn/tiles.h), packed once: a product of one row of x or of
// many then only reads them, in the order they lie in, and each element is one sum over the inner index.

#include <ATen/core/Tensor.h>

#include <cstddef>

#include "nn/row_products.h"

namespace farskip::nn {

/// How [N, K] of one type lies: panel p of 64 rows (the last one of as many as there are, filled up with zeros to a
/// multiple of 16) begins at byte 64 p row_bytes.
struct PackedShape {
  at::ScalarType type;  ///< fp32 or bf16
  int64_t num_rows, depth;

  int64_t rows_held() const { return (num_rows + 15) / 16 * 16; }
  /// 32-bit words, of which the last one of an odd number of bf16 is half used.
  int64_t row_words() const { return (depth * static_cast<int64_t>(c10::elementSize(type)) + 3) / 4; }
  int64_t nbytes() const { return 4 * rows_held() * row_words(); }
};

/// Rows [first_row, first_row + n) from [n, K] of fp32 or bf16. REQUIRES: tiles::supported(shape.type); `panels` zeros
/// or written before.
void pack_rows(const PackedShape& shape, const at::Tensor& rows, int64_t first_row, std::byte* panels);

/// [N, K] in fp32.
at::Tensor unpacked_rows(const PackedShape& shape, const std::byte* panels);

/// p.w is a panel. REQUIRES: tiles::supported() of T.
template <typename T>
void packed_product(const RowProduct<T>& p);

}  // namespace farskip::nn
