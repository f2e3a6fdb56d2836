#pragma once
// What core attention does with a block of scores, row by row.

#include <algorithm>
#include <cstdint>

#include "nn/tiles.h"

namespace farskip::nn {

/// A block of scores or weights, panel_cols wide, and what of it lies on or below the diagonal.
struct Block {
  int64_t first, rows, cols;  ///< rows [first, rows) see columns; `first` is even
  int64_t diagonal;           ///< row r sees columns [0, r + diagonal]
  int64_t seen(int64_t r) const { return std::min(cols, r + diagonal + 1); }
};

/// Online softmax: weights = e^(scale scores - largest), with largest and sum [rows] those of all blocks so far; what
/// was summed before, and out [rows, width], shrink where a larger score has come. Unseen columns get 0.
template <typename T>
void softmax_rows(const Block& b, float scale, const float* scores, T* weights, float* largest, float* sum, float* out,
                  int64_t width);

/// weights = e^(scale scores - lse) and dscores = scale weights (dweights - delta). Unseen columns get 0.
template <typename T>
void softmax_backward_rows(const Block& b, float scale, const float* scores, const float* dweights, const float* lse,
                           const float* delta, T* weights, T* dscores);

}  // namespace farskip::nn
