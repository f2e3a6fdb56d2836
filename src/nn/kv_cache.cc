#include "nn/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "nn/attention.h"
#include "nn/experts.h"

namespace farskip::nn {
namespace {

KvShape shape_of(const AttentionConfig& config) {
  if (config.kind == AttentionKind::mla) {
    return {1, config.kv_lora_rank + config.qk_rope_head_dim, config.kv_lora_rank, true};
  }
  return {config.num_kv_heads, config.qk_head_dim(), config.v_head_dim};
}

/// Of a chunk the runs of positions that see from the same one on: Llama-4's layers forget at each multiple of `reach`.
void add_queries(const CachedChunk& chunk, int64_t reach, std::vector<PagedQuery>& queries) {
  const int64_t end = chunk.position + chunk.num_rows;
  for (int64_t p = chunk.position; p < end;) {
    const int64_t visible = reach > 0 ? p / reach * reach : 0;
    const int64_t last = reach > 0 ? std::min(end, visible + reach) : end;
    queries.push_back({chunk.pages, chunk.first_row + p - chunk.position, last - p, p, visible});
    p = last;
  }
}

/// Each head's rows times its matrix: x [H, T, in], weight [H, out, in] -> [H, T, out].
at::Tensor per_head(const at::Tensor& x, const Param& weight) {
  const int64_t num_heads = x.size(0), num_rows = x.size(1);
  const at::Tensor offsets = at::arange(num_heads + 1, at::kLong).mul_(num_rows);
  const at::Tensor y = grouped_linear(x.reshape({num_heads * num_rows, x.size(-1)}), weight, offsets, nullptr);
  return y.view({num_heads, num_rows, y.size(-1)});
}

}  // namespace

KvCache::KvCache(const AttentionConfig& config, int64_t num_layers, int64_t num_pages, at::ScalarType dtype,
                 at::Device device, bool portable)
    : config_(config), dtype_(dtype), device_(device), portable_(portable) {
  for (int64_t i = 0; i < num_layers; ++i) layers_.emplace_back(shape_of(config), num_pages, dtype, device, portable);
}

int64_t KvCache::page_bytes(const AttentionConfig& config, int64_t num_layers, at::ScalarType dtype) {
  return num_layers * KvPages::page_bytes(shape_of(config), dtype);
}

at::Tensor KvCache::attend_latent(const KvPages& pages, const at::Tensor& q_HTd, const AttentionWeights& weights,
                                  const std::vector<PagedQuery>& queries) const {
  const auto parts = q_HTd.split_with_sizes({config_.qk_nope_head_dim, config_.qk_rope_head_dim}, -1);
  const at::Tensor q_HTr = at::cat({per_head(parts[0], weights.key_up), parts[1]}, -1);
  const at::Tensor sums_THr =
      pages.attend(q_HTr, queries, config_.softmax_scale()).unflatten(1, {config_.num_heads, config_.kv_lora_rank});
  return per_head(sums_THr.transpose(0, 1), weights.value_up).transpose(0, 1).flatten(1);
}

at::Tensor KvCache::attend_expanded(const KvPages& pages, const at::Tensor& q_Hnd, const AttentionWeights& weights,
                                    const PagedQuery& query) const {
  const int64_t length = query.position + query.num_rows;
  const Qkv all = expand_latents(pages.keys(*query.pages, length).unsqueeze(0), weights, config_);
  const int64_t num_pages = (length + KvPages::page_positions - 1) / KvPages::page_positions;
  KvPages expanded({config_.num_heads, config_.qk_head_dim(), config_.v_head_dim}, num_pages, dtype_, device_,
                   portable_);
  PageTable table(num_pages);
  std::iota(table.begin(), table.end(), 0);
  expanded.write(table, 0, all.k[0], all.v[0]);
  PagedQuery moved = query;
  moved.pages = &table;
  moved.first_row = 0;
  return expanded.attend(q_Hnd, {moved}, config_.softmax_scale());
}

at::Tensor KvCache::attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionWeights& weights, const std::vector<CachedChunk>& chunks) {
  KvPages& pages = layers_.at(layer);
  const int64_t reach = config_.of_layer(layer).chunk;
  std::vector<PagedQuery> queries;
  for (const CachedChunk& chunk : chunks) {
    pages.write(*chunk.pages, chunk.position, k[0].narrow(1, chunk.first_row, chunk.num_rows),
                v[0].narrow(1, chunk.first_row, chunk.num_rows));
    add_queries(chunk, reach, queries);
  }
  const at::Tensor q_HTd = q[0];
  if (config_.kind != AttentionKind::mla) return pages.attend(q_HTd, queries, config_.softmax_scale()).unsqueeze(0);

  const auto is_long = [](const PagedQuery& query) { return query.num_rows >= expand_from; };
  if (std::none_of(queries.begin(), queries.end(), is_long)) {
    return attend_latent(pages, q_HTd, weights, queries).unsqueeze(0);
  }
  const at::Tensor out = at::empty({q_HTd.size(1), config_.num_heads * config_.v_head_dim}, q.options());
  std::vector<PagedQuery> few;
  std::vector<int64_t> rows;
  for (PagedQuery query : queries) {
    if (is_long(query)) {
      const at::Tensor asking = q_HTd.narrow(1, query.first_row, query.num_rows);
      out.narrow(0, query.first_row, query.num_rows).copy_(attend_expanded(pages, asking, weights, query));
      continue;
    }
    for (int64_t i = 0; i < query.num_rows; ++i) rows.push_back(query.first_row + i);
    query.first_row = static_cast<int64_t>(rows.size()) - query.num_rows;
    few.push_back(query);
  }
  if (!few.empty()) {
    const at::Tensor index = at::tensor(rows, at::kLong).to(device_);
    out.index_copy_(0, index, attend_latent(pages, q_HTd.index_select(1, index), weights, few));
  }
  return out.unsqueeze(0);
}

}  // namespace farskip::nn
