#pragma once
// What of nn/tiles.h is written out for a processor's vectors, once for each kind.

#include <algorithm>

#include "nn/processor.h"
#include "nn/tiles.h"

namespace farskip::nn::tiles {

/// Writes words (row, column) to out[column * width + row] for up to 16 rows, zeros for those that are missing, and up
/// to 16 columns. Rows lie `stride` bytes apart.
using Transpose = void(const char* in, int64_t stride, int64_t rows, int64_t cols, uint32_t* out, int64_t width);

namespace avx512 {
Transpose transpose;
template <typename T, typename Out>
void multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add);
}  // namespace avx512

/// The same bits for fp32. Of bf16 an element adds one product after another where AVX-512 adds pairs.
namespace avx2 {
Transpose transpose;
template <typename T, typename Out>
void multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add);
}  // namespace avx2

/// Bytes that a block of a product fetches while it computes: `step` of them for each inner index.
struct Ahead {
  const char* bytes;
  int64_t step;

  /// The next panel in equal shares of the blocks, a line for each inner index at most.
  static Ahead of(const Panel& b, int64_t num_blocks) {
    if (b.next == nullptr) return {reinterpret_cast<const char*>(b.words), 0};
    return {reinterpret_cast<const char*>(b.next),
            std::min<int64_t>(64, (4 * b.width + num_blocks - 1) / std::max<int64_t>(1, num_blocks))};
  }
};

}  // namespace farskip::nn::tiles
