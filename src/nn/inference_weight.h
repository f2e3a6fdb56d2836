#pragma once
// Weights as inference multiplies with them: in their own type or quantised, one matrix or a stack of experts. M rows,
// K inner size, N columns of the product, E experts.

#include <ATen/core/Tensor.h>

#include <string>

#include "nn/weight_format.h"

namespace farskip::nn {

struct WeightRows;

/// What a weight is kept as: its own elements, or 8 or 4 bits for each with scales (see weight_format.h), that is 8.1
/// or 5 bits an element.
enum class Quantization : uint8_t { none, int8, int4 };

/// "none", "int8" or "int4". Throws Error for others, naming these.
Quantization parse_quantization(const std::string& text);

struct ProductOptions {
  /// The bits of a row of the result are a function of that row and the weight alone: neither of the other rows, their
  /// number, nor of threads. Packed weights give that anyway. Otherwise many rows are multiplied by other kernels than
  /// few: quantised weights by tiles, weights that are not packed by the library.
  bool batch_invariant = false;
};

class InferenceWeight {
 public:
  InferenceWeight() = default;
  /// [N, K] or [E, N, K] of fp32 or bf16, copied. `portable`: kept and multiplied as on a processor without AVX2
  /// (for tests).
  explicit InferenceWeight(const at::Tensor& weight, Quantization quantization = Quantization::none,
                           bool portable = false);
  /// Zeros of a shape [N, K] or [E, N, K], to be filled by put(). `dtype`: of the elements where not quantised.
  InferenceWeight(at::IntArrayRef shape, at::ScalarType dtype, Quantization quantization, bool portable = false);

  /// Writes rows [first_row, first_row + n) of an expert from [n, K] of fp32 or bf16, packing or quantising them: a
  /// model is loaded tensor by tensor. Throws Error where the shape does not fit, and for elements that are not finite
  /// where they are quantised.
  void put(const at::Tensor& rows, int64_t first_row = 0, int64_t expert = 0);

  bool defined() const { return storage_.defined(); }
  int64_t num_experts() const { return num_experts_; }
  int64_t rows() const { return num_rows_; }  ///< N
  int64_t depth() const { return depth_; }    ///< K
  WeightFormat format() const { return format_; }
  /// Whether it lies in panels of 64 rows, as tiles read them (nn/tiles.h): where it is not quantised and the processor
  /// has the instructions for its type.
  bool packed() const { return packed_; }
  /// Bytes that the elements take.
  int64_t nbytes() const { return static_cast<int64_t>(storage_.nbytes()); }
  /// The elements in fp32, [N, K] or [E, N, K]: those that products read; of int4, before they are rounded to x's type.
  at::Tensor decoded() const;

  /// x [..., K] W^T + bias -> [..., N] in the type of x, fp32 or bf16, summed in fp32 and rounded once. bias [N] in
  /// x's type, or undefined. Elements of int4 are rounded to the type of x before. A weight that is not quantised takes
  /// x of its own type only. REQUIRES: one matrix, not a stack.
  at::Tensor multiply(const at::Tensor& x, const at::Tensor& bias = {}, const ProductOptions& options = {}) const;

  /// y[m] = W_e x[m] for the rows offsets[e] <= m < offsets[e+1] of each expert: x [M, K], offsets [E+1] int64 on the
  /// host, returns [M, N]. Experts without rows are not read.
  at::Tensor multiply_experts(const at::Tensor& x, const at::Tensor& offsets, const ProductOptions& options = {}) const;

 private:
  at::Tensor product(const at::Tensor& x, const int64_t* offsets, const at::Tensor& bias,
                     const ProductOptions& options) const;
  at::Tensor library_product(const at::Tensor& x, const int64_t* offsets, const at::Tensor& bias) const;
  WeightRows view() const;

  /// [N, K] or [E, N, K] of the elements; bytes [E, N, row bytes] of quantised ones; int32 [E, N up to a multiple of
  /// 16, words of a row] of packed ones
  at::Tensor storage_;
  int64_t num_experts_ = 0, num_rows_ = 0, depth_ = 0;
  bool stacked_ = false, portable_ = false, packed_ = false;
  WeightFormat format_ = WeightFormat::fp32;
};

/// What Param::prepared points to.
struct PreparedWeight {
  InferenceWeight weight;
  ProductOptions options;
};

}  // namespace farskip::nn
