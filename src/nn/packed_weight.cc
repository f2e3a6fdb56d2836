#include "nn/packed_weight.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "nn/for_machine.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

tiles::Panel panel_at(const PackedShape& shape, const std::byte* panels, int64_t first_row) {
  const int64_t cols = std::min(tiles::panel_cols, shape.num_rows - first_row);
  return {reinterpret_cast<const uint32_t*>(panels) + first_row * shape.row_words(), cols, (cols + 15) / 16 * 16,
          shape.row_words()};
}

/// [rows of the panel, K] in the type of the shape.
at::Tensor rows_of(const PackedShape& shape, const tiles::Panel& panel) {
  const int64_t words = (panel.depth + 15) / 16 * 16, per_word = 4 / static_cast<int64_t>(c10::elementSize(shape.type));
  const at::Tensor rows = at::empty({panel.cols, words * per_word}, shape.type);
  tiles::unpack(panel, static_cast<uint32_t*>(rows.mutable_data_ptr()), words);
  return rows.narrow(1, 0, shape.depth);
}

template <typename T>
void pack_panels(const PackedShape& shape, const at::Tensor& rows, int64_t first_row, std::byte* panels) {
  const int64_t end_row = first_row + rows.size(0), first_panel = first_row / tiles::panel_cols;
  const int64_t end_panel = (end_row + tiles::panel_cols - 1) / tiles::panel_cols;
  at::parallel_for(first_panel, end_panel, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const tiles::Panel panel = panel_at(shape, panels, p * tiles::panel_cols);
      const int64_t from = std::max(first_row, p * tiles::panel_cols);
      const int64_t to = std::min(end_row, p * tiles::panel_cols + panel.cols);
      at::Tensor all = rows.narrow(0, from - first_row, to - from);
      if (to - from < panel.cols) {  // the others stay
        all = rows_of(shape, panel);
        all.narrow(0, from - p * tiles::panel_cols, to - from).copy_(rows.narrow(0, from - first_row, to - from));
      }
      const tiles::Matrix<T> matrix{all.const_data_ptr<T>(), shape.depth, panel.cols, 1, all.stride(0)};
      tiles::pack(matrix, 0, const_cast<uint32_t*>(panel.words));
    }
  });
}

template <typename T>
void add_bias(const float* sums, const T* bias, int64_t num_rows, int64_t num_cols, T* out, int64_t out_stride) {
  for_machine(0, num_rows, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t m = begin; m < end; ++m) {
      for (int64_t n = 0; n < num_cols; ++n)
        out[m * out_stride + n] = static_cast<T>(sums[m * tiles::panel_cols + n] + static_cast<float>(bias[n]));
    }
  });
}

}  // namespace

void pack_rows(const PackedShape& shape, const at::Tensor& rows, int64_t first_row, std::byte* panels) {
  const at::Tensor dense = rows.detach().to(shape.type).contiguous();
  (shape.type == at::kFloat ? pack_panels<float> : pack_panels<at::BFloat16>)(shape, dense, first_row, panels);
}

at::Tensor unpacked_rows(const PackedShape& shape, const std::byte* panels) {
  const at::Tensor out = at::empty({shape.num_rows, shape.depth}, at::kFloat);
  for (int64_t n = 0; n < shape.num_rows; n += tiles::panel_cols) {
    const tiles::Panel panel = panel_at(shape, panels, n);
    out.narrow(0, n, panel.cols).copy_(rows_of(shape, panel));
  }
  return out;
}

template <typename T>
void packed_product(const RowProduct<T>& p) {
  std::vector<uint32_t> storage;
  const tiles::Left x = tiles::left(tiles::Matrix<T>{p.x, p.num_x, p.depth, p.x_stride, 1}, storage);
  const tiles::Panel w{reinterpret_cast<const uint32_t*>(p.w), p.num_w, (p.num_w + 15) / 16 * 16, x.depth,
                       reinterpret_cast<const uint32_t*>(p.next)};
  if (p.bias == nullptr) return tiles::multiply<T>(x, w, p.out, p.out_stride);
  const auto sums = std::make_unique_for_overwrite<float[]>(p.num_x * tiles::panel_cols);
  tiles::multiply<T>(x, w, sums.get(), tiles::panel_cols);
  add_bias(sums.get(), p.bias, p.num_x, p.num_w, p.out, p.out_stride);
}

template void packed_product<float>(const RowProduct<float>&);
template void packed_product<at::BFloat16>(const RowProduct<at::BFloat16>&);

}  // namespace farskip::nn
