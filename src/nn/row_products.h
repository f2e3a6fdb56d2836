#pragma once
// Products of the rows of activations with the rows of weights, y = x W^T, as inference needs them: W is read once, as
// it lies in memory, whether x has one row or many. Packed weights are multiplied by tiles (nn/packed_weight.h). Of
// others, an element of the result is a sum of 16 interleaved partial sums over K, in fp32, which are then added by
// halves. Either way its bits depend on its two rows alone, not on how many others there are, nor on threads.

#include <ATen/core/Tensor.h>

#include "nn/weight_format.h"

namespace farskip::nn {

/// Experts' matrices [N, K].
struct WeightRows {
  WeightFormat format;
  bool packed;
  std::byte* data;
  int64_t num_experts, num_rows, depth;
  int64_t row_stride, expert_stride;  ///< in bytes

  /// Of packed ones `index` is the first one of a panel.
  std::byte* row(int64_t expert, int64_t index) const { return data + expert * expert_stride + index * row_stride; }
};

inline constexpr int64_t max_panel_rows = 64;

/// Some rows of x times up to 64 rows of a weight. T: float or at::BFloat16.
template <typename T>
struct RowProduct {
  const T* x;
  int64_t x_stride, num_x;
  const std::byte* w;
  int64_t w_stride;  ///< in bytes
  WeightFormat format;
  int64_t num_w, depth;
  const T* bias;  ///< [num_w], or null
  T* out;         ///< [num_x, num_w]
  int64_t out_stride;
  const float* scales = nullptr;    ///< [num_w] of the sums of int8; null for other formats
  const std::byte* next = nullptr;  ///< the rows of the weight that come next, for packed_product
};

/// On any processor.
template <typename T>
void portable_product(const RowProduct<T>& product);

/// With 512-bit or 256-bit vectors, which vectors_for(T) must admit (nn/processor.h); a quantised weight.
template <typename T>
void avx512_product(const RowProduct<T>& product);
template <typename T>
void avx2_product(const RowProduct<T>& product);

/// The rows of the product's weight in T, row n at out + n * stride; those of int8 without their scales. What stands
/// behind a row's end is written up to a multiple of 32 elements, and finite.
template <typename T>
void avx512_decode(const RowProduct<T>& product, T* out, int64_t stride);
template <typename T>
void avx2_decode(const RowProduct<T>& product, T* out, int64_t stride);

/// out [M, N]: out[m] = W_e x[m] + bias for the rows offsets[e] <= m < offsets[e+1] of each expert. Panels of the
/// weights of experts that have rows are dealt among threads. x [M, K] with dense rows that lie `x_stride` elements
/// apart; bias [N] or undefined; all three of one type. M may be several dimensions, in out contiguous. `tiled`:
/// quantised experts with many rows may be decoded into tiles, whose sums have another order. `portable`: although the
/// processor has wider vectors.
void row_products(const at::Tensor& out, const at::Tensor& x, int64_t x_stride, const WeightRows& weight,
                  const int64_t* offsets, const at::Tensor& bias, bool tiled, bool portable);

}  // namespace farskip::nn
