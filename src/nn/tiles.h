#pragma once
// Products of matrices with few rows, on one thread of an x86-64 processor with AVX2 or AVX-512: what experts and core
// attention consist of. A library's product spends much of such a call on choosing a kernel and on reordering its
// operands. Here the left operand is read where it lies, and the right one is packed into panels of 64 columns, which
// a caller may keep. Each element is a sum in the order of the inner index, in fp32, whatever the blocks (with the
// matrix unit a sum of blocks' sums, nn/matrix_unit.h): its bits depend neither on threads nor on how many rows there
// are.
//
// Operands are read in 32-bit words: a word is an fp32 element, or two bf16 that are neighbours in the inner index.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace farskip::nn::tiles {

/// Whether this processor has vectors for fp32 or bf16 operands (nn/processor.h). Other types: false.
bool supported(at::ScalarType type);

/// A matrix in memory of which one stride is 1. T: float or at::BFloat16.
template <typename T>
struct Matrix {
  const T* data;
  int64_t rows, cols, row_stride, col_stride;

  Matrix t() const { return {data, cols, rows, col_stride, row_stride}; }
  Matrix rows_from(int64_t begin, int64_t num) const {
    return {data + begin * row_stride, num, cols, row_stride, col_stride};
  }
};

/// The left operand [M, K], as words.
struct Left {
  const uint32_t* words;
  int64_t rows, depth, row_stride, depth_stride;  ///< in words; depth = ceil(K / words' elements)

  Left rows_from(int64_t begin) const {
    return {words + begin * row_stride, rows - begin, depth, row_stride, depth_stride};
  }
};

/// a [M, K] as it lies, or copied into `storage` where bf16 words do not lie in memory (K is not the dense index, or
/// odd).
template <typename T>
Left left(const Matrix<T>& a, std::vector<uint32_t>& storage);

inline constexpr int64_t panel_cols = 64;

/// Up to 64 columns of the right operand [K, N]: word (k, n) at words[k * width + n], zeros behind the last column.
struct Panel {
  const uint32_t* words;
  int64_t cols, width, depth;
  const uint32_t* next = nullptr;  ///< a panel that is multiplied with soon: fetched into the cache meanwhile

  /// Without the first `begin` words of each column.
  Panel from_depth(int64_t begin) const { return {words + begin * width, cols, width, depth - begin, next}; }
};

/// Words that a panel of an inner size takes at most.
template <typename T>
int64_t panel_words(int64_t inner) {
  return (inner * static_cast<int64_t>(sizeof(T)) + 3) / 4 * panel_cols;
}

/// Columns [begin, begin + 64) of b [K, N], as many as there are, packed into `words`.
template <typename T>
Panel pack(const Matrix<T>& b, int64_t begin, uint32_t* words);

/// The columns of a panel as rows again: word (k, n) to rows[n * stride + k]. REQUIRES: stride of at least the depth
/// rounded up to 16; words behind the depth are overwritten.
void unpack(const Panel& b, uint32_t* rows, int64_t stride);

/// out [M, N] = a b, or with `add` out += a b (fp32 alone). T is what the words hold. `row_stride`: of out.
template <typename T, typename Out>
void multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add = false);

/// out [M, N] = a b: blocks divided among threads where there is enough to do. Other types and processors, and
/// operands without a dense index: the library's product.
void product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b);

/// Whether product() is better than the library's however large the operands are: for bf16 on a processor with AVX2 and
/// without AVX-512, where the library multiplies element by element.
bool better_than_library(const at::Tensor& x);

/// a b, new: of operands that may be large. The library's product, where that is not worse.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

}  // namespace farskip::nn::tiles
