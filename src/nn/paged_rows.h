#pragma once
// A packed page of KvPages: for each key/value head a panel of 64 columns of keys, then panels of up to 64 channels of
// values whose inner index is the position. Words as in nn/tiles.h.

#include <ATen/core/Tensor.h>

#include "nn/kv_pages.h"

namespace farskip::nn {

template <typename T>
struct PageLayout {
  static constexpr int64_t per_word = 4 / static_cast<int64_t>(sizeof(T));
  static constexpr int64_t value_depth = tiles::panel_cols / per_word;  ///< words of a column of values

  explicit PageLayout(const KvShape& shape)
      : key_depth((shape.key_dim + per_word - 1) / per_word),
        key_words(key_depth * tiles::panel_cols),
        value_words(shape.values_in_keys ? 0 : value_depth * ((shape.value_dim + 15) / 16 * 16)),
        head_words(key_words + value_words),
        page_words(shape.num_heads * head_words) {}

  int64_t key_depth, key_words, value_words, head_words, page_words;
};

/// Writes one position's key [d] and value [e] (nullptr: in the key) of one head at column `column` of its page.
template <typename T>
void write_position(const KvShape& shape, uint32_t* head, int64_t column, const T* key, const T* value);

/// The rows that ask within one head: row r has the query at q.row(r) and writes e values at out + r * out_stride.
template <typename T>
struct PagedRows {
  tiles::Matrix<T> q;
  T* out;
  int64_t out_stride;
  int64_t position;  ///< of row 0
  int64_t step;      ///< 1: of row r it is position + r; 0: all have one, and are heads of one group
  int64_t visible;
};

/// Attention of `rows` over head `group` of a sequence's pages; pages[i]: the words of its i-th page.
template <typename T>
void attend_rows(const KvShape& shape, const std::vector<const uint32_t*>& pages, int64_t group,
                 const PagedRows<T>& rows, float scale);

}  // namespace farskip::nn
