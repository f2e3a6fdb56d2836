#pragma once
// Keys and values of the positions a model has seen, in pages of 64 positions, and attention over them. On a processor
// with the instructions (nn/tiles.h) a page is kept as the operands of attention's products, so that nothing is packed
// when it is read. H query heads, G key/value heads, d and e sizes of keys and values.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "nn/tiles.h"

namespace farskip::nn {

struct KvShape {
  int64_t num_heads = 0;        ///< G
  int64_t key_dim = 0;          ///< d
  int64_t value_dim = 0;        ///< e
  bool values_in_keys = false;  ///< values are the first e channels of keys (latents) and are not kept beside them
};

/// The pages of one sequence: page i holds its positions [64 i, 64 i + 64).
using PageTable = std::vector<int32_t>;

/// Successive positions of one sequence that ask.
struct PagedQuery {
  const PageTable* pages;
  int64_t first_row;  ///< of q
  int64_t num_rows;   ///< row i has position `position` + i and sees positions [visible, position + i]
  int64_t position;
  int64_t visible = 0;
};

class KvPages {
 public:
  static constexpr int64_t page_positions = tiles::panel_cols;

  /// Memory is taken when a page is first written to. `portable`: as on a processor without the instructions.
  KvPages(const KvShape& shape, int64_t num_pages, at::ScalarType dtype, at::Device device = at::kCPU,
          bool portable = false);

  static int64_t page_bytes(const KvShape& shape, at::ScalarType dtype);

  /// Positions from `position` on: k [G, n, d], v [G, n, e] (not looked at where values are in keys).
  void write(const PageTable& pages, int64_t position, const at::Tensor& k, const at::Tensor& v);

  /// The keys of the first `length` positions, [G, length, d].
  at::Tensor keys(const PageTable& pages, int64_t length) const;

  /// softmax(scale q k^T) v: q [H, T, d] with G dividing H -> [T, H*e]. Queries cover each row once. The bits of a row
  /// depend on its position, its query and its sequence's keys and values alone. Scores and sums are fp32; with bf16
  /// operands the weights are rounded before they meet v.
  at::Tensor attend(const at::Tensor& q, const std::vector<PagedQuery>& queries, double scale) const;

 private:
  at::Tensor& page(int32_t index);
  template <typename T>
  void write_packed(const PageTable& pages, int64_t position, const at::Tensor& k, const at::Tensor& v);
  at::Tensor plain_rows(const PageTable& pages, int64_t length) const;
  void attend_plain(const at::Tensor& q, const PagedQuery& query, double scale, const at::Tensor& out) const;

  KvShape shape_;
  at::ScalarType dtype_;
  at::Device device_;
  bool packed_;
  std::vector<at::Tensor> pages_;  ///< packed: words, see paged_rows.h; else [64, G*d (+ G*e)]
};

}  // namespace farskip::nn
