#include "nn/row_products.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "base/error.h"
#include "nn/for_machine.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

/// Calls f(item) for each of [0, num_items), on all threads where it is worth it: each takes the next one when it is
/// done.
template <typename F>
void deal(int64_t num_items, bool worth_it, const F& f) {
  std::atomic<int64_t> next = 0;
  const int64_t num_threads = worth_it ? std::min<int64_t>(at::get_num_threads(), num_items) : 1;
  at::parallel_for(0, num_threads, 1, [&](int64_t, int64_t) {
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < num_items;) f(item);
  });
}

/// Rows of a weight that fit into a core's cache beside other things once they are decoded.
int64_t panel_rows(int64_t bytes_of_row) {
  return std::clamp<int64_t>((1 << 18) / std::max<int64_t>(1, bytes_of_row) / 4 * 4, 4, max_panel_rows);
}

/// Mean number of rows of an expert from which on packing a weight into tiles is worth it.
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

/// The weight's elements as they are multiplied are packed into a panel, which all rows of x share. REQUIRES: no bias.
template <typename T>
void tiled_product(const RowProduct<T>& p) {
  std::vector<uint32_t> storage, words(tiles::panel_words<T>(p.depth));
  const tiles::Left x = tiles::left(tiles::Matrix<T>{p.x, p.num_x, p.depth, p.x_stride, 1}, storage);
  const auto panel = [&](const T* w, int64_t stride) {
    return tiles::pack(tiles::Matrix<T>{w, p.depth, p.num_w, 1, stride}, 0, words.data());
  };
  if (p.format == format_of(c10::CppTypeToScalarType<T>::value)) {
    return tiles::multiply<T>(x, panel(reinterpret_cast<const T*>(p.w), p.w_stride / static_cast<int64_t>(sizeof(T))),
                              p.out, p.out_stride);
  }
  const int64_t stride = (p.depth + 31) / 32 * 32;
  const auto decoded = std::make_unique_for_overwrite<T[]>(p.num_w * stride);
  decode_weight(p, decoded.get(), stride);
  const tiles::Panel w = panel(decoded.get(), stride);
  if (p.format != WeightFormat::int8) return tiles::multiply<T>(x, w, p.out, p.out_stride);
  float scales[tiles::panel_cols];
  for (int64_t n = 0; n < p.num_w; ++n) scales[n] = scale_of_row(p.w + n * p.w_stride, p.depth);
  const auto sums = std::make_unique_for_overwrite<float[]>(p.num_x * tiles::panel_cols);
  tiles::multiply<T>(x, w, sums.get(), tiles::panel_cols);
  scale_columns(sums.get(), tiles::panel_cols, scales, p.num_x, p.num_w, p.out, p.out_stride);
}

template <typename T>
void products(const at::Tensor& out, const at::Tensor& x, const WeightRows& weight, const int64_t* offsets,
              const at::Tensor& bias, bool tiled, bool portable) {
  std::vector<int64_t> active;
  for (int64_t e = 0; e < weight.num_experts; ++e) {
    if (offsets[e + 1] > offsets[e]) active.push_back(e);
  }
  const bool wide = !portable && tiles::supported(x.scalar_type());
  const bool many = tiled && wide && !bias.defined() && x.size(0) >= many_rows * static_cast<int64_t>(active.size());
  const auto kernel = many ? tiled_product<T> : wide ? wide_product<T> : portable_product<T>;
  const int64_t at_once = many ? tiles::panel_cols : panel_rows(weight.depth * static_cast<int64_t>(sizeof(T)));
  const int64_t num_panels = (weight.num_rows + at_once - 1) / at_once;
  const bool worth_it = x.size(0) * weight.num_rows * weight.depth >= 1 << 16;
  const T* bias_data = bias.defined() ? bias.const_data_ptr<T>() : nullptr;
  const T* x_data = x.const_data_ptr<T>();
  T* out_data = out.data_ptr<T>();
  deal(static_cast<int64_t>(active.size()) * num_panels, worth_it, [&](int64_t item) {
    const int64_t expert = active[item / num_panels], first = item % num_panels * at_once, row = offsets[expert];
    kernel({x_data + row * x.stride(0), x.stride(0), offsets[expert + 1] - row, weight.row(expert, first),
            row_bytes(weight.format, weight.depth), weight.format, std::min(at_once, weight.num_rows - first),
            weight.depth, bias_data == nullptr ? nullptr : bias_data + first, out_data + row * out.stride(0) + first,
            out.stride(0)});
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

void row_products(const at::Tensor& out, const at::Tensor& x, const WeightRows& weight, const int64_t* offsets,
                  const at::Tensor& bias, bool tiled, bool portable) {
  FARSKIP_CHECK(x.size(1) == weight.depth && (x.size(1) <= 1 || x.stride(1) == 1), "rows of x");
  (x.scalar_type() == at::kFloat ? products<float> : products<at::BFloat16>)(out, x, weight, offsets, bias, tiled,
                                                                             portable);
}

}  // namespace farskip::nn
