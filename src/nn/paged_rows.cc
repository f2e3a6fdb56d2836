#include "nn/paged_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "nn/flash_rows.h"
#include "nn/for_machine.h"

namespace farskip::nn {
namespace {

using tiles::Left;
using tiles::Panel;

constexpr int64_t block_rows = 96;
constexpr int64_t block_cols = tiles::panel_cols;

/// Channels [64 c, ...) of values: how many there are, and the width of their panel.
struct ValuePanel {
  int64_t cols, width;
  ValuePanel(int64_t value_dim, int64_t c)
      : cols(std::min(block_cols, value_dim - c * block_cols)), width((cols + 15) / 16 * 16) {}
};

/// The panels of a page's values, where they are in its keys.
template <typename T>
class LatentValues {
 public:
  void derive(const KvShape& shape, const PageLayout<T>& layout, const uint32_t* keys) {
    const int64_t stride = (layout.key_depth + 15) / 16 * 16;
    rows_.resize(block_cols * stride);
    tiles::unpack({keys, block_cols, block_cols, layout.key_depth}, rows_.data(), stride);
    words_.resize(layout.value_depth * ((shape.value_dim + 15) / 16 * 16));
    const tiles::Matrix<T> latents{reinterpret_cast<const T*>(rows_.data()), block_cols, shape.value_dim,
                                   stride * PageLayout<T>::per_word, 1};
    for (int64_t c = 0; c * block_cols < shape.value_dim; ++c)
      tiles::pack(latents, c * block_cols, words_.data() + c * block_cols * layout.value_depth);
  }
  const uint32_t* words() const { return words_.data(); }

 private:
  std::vector<uint32_t> rows_, words_;
};

}  // namespace

template <typename T>
void write_position(const KvShape& shape, uint32_t* head, int64_t column, const T* key, const T* value) {
  const PageLayout<T> layout(shape);
  for (int64_t k = 0; k < layout.key_depth; ++k) {
    uint32_t word = 0;
    const int64_t first = k * layout.per_word;
    std::memcpy(&word, key + first, std::min(layout.per_word, shape.key_dim - first) * sizeof(T));
    head[k * block_cols + column] = word;
  }
  if (value == nullptr) return;
  uint32_t* values = head + layout.key_words;
  for (int64_t c = 0; c * block_cols < shape.value_dim; ++c) {
    const ValuePanel panel(shape.value_dim, c);
    uint32_t* row = values + c * block_cols * layout.value_depth + column / layout.per_word * panel.width;
    for (int64_t n = 0; n < panel.cols; ++n) {
      uint32_t bits = 0;
      std::memcpy(&bits, value + c * block_cols + n, sizeof(T));
      if constexpr (layout.per_word == 1) {
        row[n] = bits;
      } else {
        row[n] = column % 2 == 0 ? bits : (row[n] & 0xFFFF) | bits << 16;  // what was there of another sequence goes
      }
    }
  }
}

template <typename T>
void attend_rows(const KvShape& shape, const std::vector<const uint32_t*>& pages, int64_t group,
                 const PagedRows<T>& rows, float scale) {
  const PageLayout<T> layout(shape);
  const int64_t width = shape.value_dim;
  const int64_t most = std::min(block_rows, rows.q.rows);
  std::vector<float> scores(most * block_cols), out(most * width), largest(most), sum(most);
  std::vector<T> weights(most * block_cols);
  std::vector<uint32_t> storage;
  LatentValues<T> latent;
  for (int64_t i = 0; i < rows.q.rows; i += block_rows) {
    const int64_t num = std::min(block_rows, rows.q.rows - i), first_position = rows.position + i * rows.step;
    const int64_t last_position = first_position + (num - 1) * rows.step;
    const Left query = tiles::left(rows.q.rows_from(i, num), storage);
    std::fill(largest.begin(), largest.end(), -std::numeric_limits<float>::infinity());
    std::fill(sum.begin(), sum.end(), 0);
    std::fill(out.begin(), out.end(), 0);
    for (int64_t j = rows.visible / block_cols; j * block_cols <= last_position; ++j) {
      const int64_t begin = j * block_cols, cols = std::min(block_cols, last_position + 1 - begin);
      const int64_t first = rows.step == 0 ? 0 : std::max<int64_t>(0, begin - first_position);
      const Block block{first, num, cols, rows.step == 0 ? block_cols : first_position - begin};
      const uint32_t* keys = pages[j] + group * layout.head_words;
      tiles::multiply<T>(query.rows_from(first), Panel{keys, block_cols, block_cols, layout.key_depth},
                         scores.data() + first * block_cols, block_cols);
      for (int64_t r = first; r < num && begin < rows.visible; ++r)
        std::fill_n(scores.data() + r * block_cols, rows.visible - begin, -std::numeric_limits<float>::infinity());
      softmax_rows(block, scale, scores.data(), weights.data(), largest.data(), sum.data(), out.data(), width);
      if (shape.values_in_keys) latent.derive(shape, layout, keys);
      const uint32_t* values = shape.values_in_keys ? latent.words() : keys + layout.key_words;
      const int64_t depth = (cols + layout.per_word - 1) / layout.per_word;
      const Left weight{reinterpret_cast<const uint32_t*>(weights.data() + first * block_cols), num - first, depth,
                        block_cols / layout.per_word, 1};
      for (int64_t c = 0; c * block_cols < width; ++c) {
        const ValuePanel panel(width, c);
        tiles::multiply<T>(weight, Panel{values + c * block_cols * layout.value_depth, panel.cols, panel.width, depth},
                           out.data() + first * width + c * block_cols, width, true);
      }
    }
    for_machine(0, num, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t r = begin; r < end; ++r) {
        T* row = rows.out + (i + r) * rows.out_stride;
        for (int64_t n = 0; n < width; ++n) row[n] = static_cast<T>(out[r * width + n] / sum[r]);
      }
    });
  }
}

#define FARSKIP_PAGED_ROWS(T)                                                           \
  template void write_position(const KvShape&, uint32_t*, int64_t, const T*, const T*); \
  template void attend_rows(const KvShape&, const std::vector<const uint32_t*>&, int64_t, const PagedRows<T>&, float);
FARSKIP_PAGED_ROWS(float)
FARSKIP_PAGED_ROWS(at::BFloat16)
#undef FARSKIP_PAGED_ROWS

}  // namespace farskip::nn
