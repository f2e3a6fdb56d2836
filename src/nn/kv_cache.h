#pragma once
// Attention over a cache of what sequences have seen: keys and values of grouped-query attention, latents of multi-head
// latent attention (arXiv 2405.04434). T rows of any number of sequences, H query heads.

#include <vector>

#include "config/model_config.h"
#include "nn/kv_pages.h"
#include "nn/weights.h"

namespace farskip::nn {

/// New positions of one sequence, a run of a step's rows.
struct CachedChunk {
  const PageTable* pages;  ///< enough for the new positions
  int64_t first_row;
  int64_t num_rows;
  int64_t position;  ///< of the first new row: so many are in the cache
};

class KvCache {
 public:
  /// Pages hold KvPages::page_positions positions of all layers; memory is taken as they are used.
  KvCache(const AttentionConfig& config, int64_t num_layers, int64_t num_pages, at::ScalarType dtype,
          at::Device device = at::kCPU, bool portable = false);

  /// Of all layers.
  static int64_t page_bytes(const AttentionConfig& config, int64_t num_layers, at::ScalarType dtype);

  /// Writes the new positions of a layer, k and v as compressed_qkv gives them, [1, G, T, ...], and lets their queries
  /// q [1, H, T, qk] attend to all that their sequences have: returns [1, T, H*v]. Chunks cover each row once.
  ///
  /// Latents are never expanded for short chunks: heads' queries are brought to the space of latents instead, and sums
  /// of latents back from it. For long ones (a prompt) expanding costs less. Either way the bits of a chunk depend on
  /// its sequence alone where products are batch-invariant.
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const AttentionWeights& weights, const std::vector<CachedChunk>& chunks);

  /// Rows of a chunk from which on latents are expanded: about where it costs less, for DeepSeek's sizes.
  static constexpr int64_t expand_from = 128;

 private:
  at::Tensor attend_latent(const KvPages& pages, const at::Tensor& q_HTd, const AttentionWeights& weights,
                           const std::vector<PagedQuery>& queries) const;
  at::Tensor attend_expanded(const KvPages& pages, const at::Tensor& q_Hnd, const AttentionWeights& weights,
                             const PagedQuery& query) const;

  AttentionConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  bool portable_;
  std::vector<KvPages> layers_;
};

/// What a step of inference hands to its attention stages.
struct CacheStep {
  KvCache* cache;
  std::vector<CachedChunk> chunks;
};

}  // namespace farskip::nn
