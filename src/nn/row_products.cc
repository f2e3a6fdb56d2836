#include "nn/row_products.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "base/error.h"
#include "nn/for_machine.h"
#include "nn/packed_weight.h"
#include "nn/processor.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

/// Calls f(item, next item) for each of [0, num_items), on all threads where it is worth it: each takes its next one
/// when it begins one, so that f can fetch what that needs. Behind a thread's last item comes num_items or more.
template <typename F>
void deal(int64_t num_items, bool worth_it, const F& f) {
  const int64_t num_threads = worth_it ? std::min<int64_t>(at::get_num_threads(), num_items) : 1;
  std::atomic<int64_t> untaken = num_threads;
  at::parallel_for(0, num_threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; ++first) {
      for (int64_t item = first, next; item < num_items; item = next) {
        next = untaken.fetch_add(1, std::memory_order_relaxed);
        f(item, next);
      }
    }
  });
}

/// Rows of a weight that fit into a core's cache beside other things once they are decoded.
int64_t panel_rows(int64_t bytes_of_row) {
  return std::clamp<int64_t>((1 << 18) / std::max<int64_t>(1, bytes_of_row) / 4 * 4, 4, max_panel_rows);
}

/// Mean number of rows of an expert from which on packing a quantised weight into tiles is worth it.
constexpr int64_t many_rows = 16;

/// out [num_rows, num_cols] = sums times the scales of their columns.
template <typename T>
void scale_columns(const float* sums, int64_t sums_stride, const float* scales, int64_t num_rows, int64_t num_cols,
                   T* out, int64_t out_stride) {
  for_machine(0, num_rows, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t m = begin; m < end; ++m) {
      for (int64_t n = 0; n < num_cols; ++n)
        out[m * out_stride + n] = static_cast<T>(sums[m * sums_stride + n] * scales[n]);
    }
  });
}

template <typename T>
struct QuantizedKernels {
  void (*product)(const RowProduct<T>&) = portable_product<T>;
  void (*decode)(const RowProduct<T>&, T* out, int64_t stride) = nullptr;
};

template <typename T>
QuantizedKernels<T> quantized_kernels(bool portable) {
#if FARSKIP_VECTORS
  const Vectors vectors = portable ? Vectors::none : vectors_for(c10::CppTypeToScalarType<T>::value);
  if (vectors == Vectors::avx512) return {avx512_product<T>, avx512_decode<T>};
  if (vectors == Vectors::avx2) return {avx2_product<T>, avx2_decode<T>};
#endif
  return {};
}

/// The weight's elements as they are multiplied are packed into a panel, which all rows of x share. REQUIRES: no bias;
/// a quantised weight.
template <typename T>
void tiled_product(const RowProduct<T>& p) {
  std::vector<uint32_t> storage;
  const tiles::Left x = tiles::left(tiles::Matrix<T>{p.x, p.num_x, p.depth, p.x_stride, 1}, storage);
  const int64_t stride = (p.depth + 31) / 32 * 32;
  const auto decoded = std::make_unique_for_overwrite<T[]>(p.num_w * stride);
  quantized_kernels<T>(false).decode(p, decoded.get(), stride);
  const auto words = std::make_unique_for_overwrite<uint32_t[]>(tiles::panel_words<T>(p.depth));
  const tiles::Panel w = tiles::pack(tiles::Matrix<T>{decoded.get(), p.depth, p.num_w, 1, stride}, 0, words.get());
  if (p.format != WeightFormat::int8) return tiles::multiply<T>(x, w, p.out, p.out_stride);
  const auto sums = std::make_unique_for_overwrite<float[]>(p.num_x * tiles::panel_cols);
  tiles::multiply<T>(x, w, sums.get(), tiles::panel_cols);
  scale_columns(sums.get(), tiles::panel_cols, p.scales, p.num_x, p.num_w, p.out, p.out_stride);
}

template <typename T>
void products(const at::Tensor& out, const at::Tensor& x, int64_t x_stride, const WeightRows& weight,
              const int64_t* offsets, const at::Tensor& bias, bool tiled, bool portable) {
  std::vector<int64_t> active;
  for (int64_t e = 0; e < weight.num_experts; ++e) {
    if (offsets[e + 1] > offsets[e]) active.push_back(e);
  }
  const int64_t num_x = offsets[weight.num_experts];
  const auto quantized = quantized_kernels<T>(portable);
  const bool many = tiled && quantized.decode != nullptr && !bias.defined() &&
                    num_x >= many_rows * static_cast<int64_t>(active.size());
  const auto kernel = weight.packed ? packed_product<T> : many ? tiled_product<T> : quantized.product;
  const int64_t at_once =
      weight.packed || many ? tiles::panel_cols : panel_rows(weight.depth * static_cast<int64_t>(sizeof(T)));
  const int64_t num_panels = (weight.num_rows + at_once - 1) / at_once;
  const bool worth_it = num_x * weight.num_rows * weight.depth >= 1 << 16;
  const T* bias_data = bias.defined() ? bias.const_data_ptr<T>() : nullptr;
  const T* x_data = x.const_data_ptr<T>();
  T* out_data = out.data_ptr<T>();
  const int64_t num_items = static_cast<int64_t>(active.size()) * num_panels;
  const auto rows_of = [&](int64_t item) { return weight.row(active[item / num_panels], item % num_panels * at_once); };
  deal(num_items, worth_it, [&](int64_t item, int64_t next) {
    const int64_t expert = active[item / num_panels], first = item % num_panels * at_once, row = offsets[expert];
    const int64_t num_w = std::min(at_once, weight.num_rows - first);
    const std::byte* rows = rows_of(item);
    const bool scaled = weight.format == WeightFormat::int8;
    float scales[max_panel_rows];
    for (int64_t n = 0; scaled && n < num_w; ++n) scales[n] = scale_of_row(rows + n * weight.row_stride, weight.depth);
    kernel({.x = x_data + row * x_stride,
            .x_stride = x_stride,
            .num_x = offsets[expert + 1] - row,
            .w = rows,
            .w_stride = weight.row_stride,
            .format = weight.format,
            .num_w = num_w,
            .depth = weight.depth,
            .bias = bias_data == nullptr ? nullptr : bias_data + first,
            .out = out_data + row * weight.num_rows + first,
            .out_stride = weight.num_rows,
            .scales = scaled ? scales : nullptr,
            .next = next < num_items ? rows_of(next) : nullptr});
  });
}

template <typename T>
void round_to(std::vector<float>& values) {
  for_machine(0, static_cast<int64_t>(values.size()), [v = values.data()](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t i = begin; i < end; ++i) v[i] = static_cast<float>(static_cast<T>(v[i]));
  });
}

}  // namespace

template <typename T>
void portable_product(const RowProduct<T>& p) {
  std::vector<float> x(p.num_x * p.depth), w(p.depth);
  for_machine(0, p.num_x, [&, x = x.data()](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t m = begin; m < end; ++m) {
      for (int64_t k = 0; k < p.depth; ++k) x[m * p.depth + k] = static_cast<float>(p.x[m * p.x_stride + k]);
    }
  });
  for (int64_t n = 0; n < p.num_w; ++n) {
    decode_row(p.format, p.w + n * p.w_stride, p.depth, w.data());
    if (p.format == WeightFormat::int4) round_to<T>(w);
    const float start = p.bias == nullptr ? 0.0F : static_cast<float>(p.bias[n]);
    for_machine(0, p.num_x, [&, x = x.data(), w = w.data()](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t m = begin; m < end; ++m) {
        const float* row = x + m * p.depth;
        const float sum = lane_sum<float>(p.depth, [=](int64_t k) FARSKIP_INLINE { return row[k] * w[k]; });
        p.out[m * p.out_stride + n] = static_cast<T>(sum + start);
      }
    });
  }
}

template void portable_product<float>(const RowProduct<float>&);
template void portable_product<at::BFloat16>(const RowProduct<at::BFloat16>&);

void row_products(const at::Tensor& out, const at::Tensor& x, int64_t x_stride, const WeightRows& weight,
                  const int64_t* offsets, const at::Tensor& bias, bool tiled, bool portable) {
  FARSKIP_CHECK(x.size(-1) == weight.depth && (weight.depth <= 1 || x.stride(-1) == 1), "rows of x");
  FARSKIP_CHECK(out.is_contiguous() && out.numel() == offsets[weight.num_experts] * weight.num_rows, "rows of out");
  (x.scalar_type() == at::kFloat ? products<float> : products<at::BFloat16>)(out, x, x_stride, weight, offsets, bias,
                                                                             tiled, portable);
}

}  // namespace farskip::nn
