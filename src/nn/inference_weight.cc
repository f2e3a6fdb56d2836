#include "nn/inference_weight.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>

#include "base/error.h"
#include "nn/packed_weight.h"
#include "nn/row_products.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

WeightFormat format_for(Quantization quantization, at::ScalarType type) {
  const WeightFormat own = format_of(type);
  return quantization == Quantization::none   ? own
         : quantization == Quantization::int8 ? WeightFormat::int8
                                              : WeightFormat::int4;
}

bool quantized(WeightFormat format) { return format == WeightFormat::int8 || format == WeightFormat::int4; }

at::ScalarType type_of(WeightFormat format) { return format == WeightFormat::fp32 ? at::kFloat : at::kBFloat16; }

}  // namespace

Quantization parse_quantization(const std::string& text) {
  if (text == "none") return Quantization::none;
  if (text == "int8") return Quantization::int8;
  if (text == "int4") return Quantization::int4;
  fail("quantization {}: choose none, int8 or int4", text);
}

InferenceWeight::InferenceWeight(at::IntArrayRef shape, at::ScalarType dtype, Quantization quantization, bool portable)
    : stacked_(shape.size() == 3),
      portable_(portable),
      packed_(quantization == Quantization::none && !portable && tiles::supported(dtype)),
      format_(format_for(quantization, dtype)) {
  FARSKIP_CHECK(shape.size() == 2 || shape.size() == 3, "a weight is [N, K] or [E, N, K]");
  num_experts_ = stacked_ ? shape[0] : 1;
  num_rows_ = shape[shape.size() - 2];
  depth_ = shape.back();
  const PackedShape panels{dtype, num_rows_, depth_};
  storage_ = quantized(format_) ? at::zeros({num_experts_, num_rows_, row_bytes(format_, depth_)}, at::kByte)
             : packed_          ? at::zeros({num_experts_, panels.rows_held(), panels.row_words()}, at::kInt)
                                : at::zeros(shape, dtype);
}

InferenceWeight::InferenceWeight(const at::Tensor& weight, Quantization quantization, bool portable)
    : InferenceWeight(weight.sizes(), weight.scalar_type(), quantization, portable) {
  for (int64_t e = 0; e < num_experts_; ++e) put(stacked_ ? weight[e] : weight, 0, e);
}

WeightRows InferenceWeight::view() const {
  const PackedShape panels{type_of(format_), num_rows_, depth_};
  const int64_t row = packed_ ? 4 * panels.row_words() : row_bytes(format_, depth_);
  return {.format = format_,
          .packed = packed_,
          .data = static_cast<std::byte*>(storage_.mutable_data_ptr()),
          .num_experts = num_experts_,
          .num_rows = num_rows_,
          .depth = depth_,
          .row_stride = row,
          .expert_stride = row * (packed_ ? panels.rows_held() : num_rows_)};
}

void InferenceWeight::put(const at::Tensor& rows, int64_t first_row, int64_t expert) {
  if (rows.dim() != 2 || rows.size(1) != depth_ || first_row < 0 || first_row + rows.size(0) > num_rows_ ||
      expert < 0 || expert >= num_experts_) {
    fail("a tensor of {} does not fit at row {} of expert {} of a weight of {} x {} x {}", c10::str(rows.sizes()),
         first_row, expert, num_experts_, num_rows_, depth_);
  }
  if (quantized(format_)) {
    quantize(rows, format_, view().row(expert, first_row));
  } else if (packed_) {
    pack_rows({type_of(format_), num_rows_, depth_}, rows, first_row, view().row(expert, 0));
  } else {
    const at::Tensor matrix = stacked_ ? storage_[expert] : storage_;
    matrix.narrow(0, first_row, rows.size(0)).copy_(rows);
  }
}

at::Tensor InferenceWeight::decoded() const {
  const WeightRows weight = view();
  if (!packed_ && !quantized(format_)) return storage_.to(at::kFloat, false, true);
  const at::Tensor out = at::empty({num_experts_, num_rows_, depth_}, at::kFloat);
  if (packed_) {
    for (int64_t e = 0; e < num_experts_; ++e)
      out[e].copy_(unpacked_rows({type_of(format_), num_rows_, depth_}, weight.row(e, 0)));
  } else {
    float* data = out.data_ptr<float>();
    at::parallel_for(0, num_experts_ * num_rows_, 16, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) decode_row(format_, weight.row(0, n), depth_, data + n * depth_);
    });
  }
  return stacked_ ? out : out[0];
}

/// For processors without our instructions.
at::Tensor InferenceWeight::library_product(const at::Tensor& x, const int64_t* offsets, const at::Tensor& bias) const {
  if (!stacked_) return at::linear(x, storage_, bias.defined() ? std::optional(bias) : std::nullopt);
  const at::Tensor out = at::empty({x.size(0), num_rows_}, x.options());
  for (int64_t e = 0; e < num_experts_; ++e) {
    const int64_t num = offsets[e + 1] - offsets[e];
    if (num == 0) continue;
    at::Tensor part = out.narrow(0, offsets[e], num);
    at::mm_out(part, x.narrow(0, offsets[e], num), storage_[e].t());
  }
  return out;
}

at::Tensor InferenceWeight::product(const at::Tensor& x, const int64_t* offsets, const at::Tensor& bias,
                                    const ProductOptions& options) const {
  const bool fits = quantized(format_) ? x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16
                                       : x.scalar_type() == type_of(format_);
  if (!fits) {
    fail("activations of {} times weights of {}: load the model in the type it computes in, float32 or bfloat16",
         c10::toString(x.scalar_type()), quantized(format_) ? "8 or 4 bits" : c10::toString(type_of(format_)));
  }
  FARSKIP_CHECK(
      !bias.defined() || (bias.numel() == num_rows_ && bias.is_contiguous() && bias.scalar_type() == x.scalar_type()),
      "a bias [N] of the type of x");
  const bool own_kernel = quantized(format_) || packed_ || portable_ || options.batch_invariant;
  if (!own_kernel) return library_product(x, offsets, bias);
  // Dense rows at equal distances are read where they lie.
  at::Tensor rows = x.is_contiguous() ? x : x.reshape({-1, depth_});
  if (rows.stride(-1) != 1 && depth_ > 1) rows = rows.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = num_rows_;
  const at::Tensor out = at::empty(shape, x.options());
  row_products(out, rows, rows.is_contiguous() ? depth_ : rows.stride(0), view(), offsets, bias,
               !options.batch_invariant, portable_);
  return out;
}

at::Tensor InferenceWeight::multiply(const at::Tensor& x, const at::Tensor& bias, const ProductOptions& options) const {
  FARSKIP_CHECK(!stacked_, "a stack of experts needs multiply_experts");
  if (x.size(-1) != depth_) fail("{} elements a row times a weight of {} x {}", x.size(-1), num_rows_, depth_);
  const std::array<int64_t, 2> offsets = {0, x.numel() / std::max<int64_t>(1, depth_)};
  return product(x, offsets.data(), bias, options);
}

at::Tensor InferenceWeight::multiply_experts(const at::Tensor& x, const at::Tensor& offsets,
                                             const ProductOptions& options) const {
  FARSKIP_CHECK(offsets.numel() == num_experts_ + 1 && offsets.scalar_type() == at::kLong && offsets.is_contiguous(),
                "offsets of another number of experts");
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  FARSKIP_CHECK(x.dim() == 2 && offset[0] == 0 && offset[num_experts_] == x.size(0), "offsets of other rows");
  if (x.size(-1) != depth_) fail("{} elements a row times a weight of {} x {}", x.size(-1), num_rows_, depth_);
  return product(x, offset, {}, options);
}

}  // namespace farskip::nn
