#pragma once
// Attention in the three stages between which communication is awaited. B sequences, S positions, D hidden size, H
// query heads, G key/value heads (G = H for multi-head latent attention), qk and v head sizes.

#include <vector>

#include "config/model_config.h"
#include "nn/rotary.h"
#include "nn/weights.h"

namespace farskip::nn {

struct Qkv {
  at::Tensor q;     ///< [B, H, S, qk], rotated
  at::Tensor k;     ///< [B, G, S, qk], rotated
  at::Tensor v;     ///< [B, G, S, v]
  at::Tensor gate;  ///< [B, S, H*v], after the sigmoid; undefined where attention is not gated
};

/// Projects the normed input x [B, S, D]: multi-head latent attention (arXiv 2405.04434, with or without a query LoRA)
/// or grouped-query attention with optional norms of q and k. `norm_eps`: of q_norm and k_norm (the model's
/// rms_norm_eps; latent norms have their own in the config). The table holds the S positions of x; without
/// angles (grouped-query attention only) nothing is rotated and q has its temperature. Where x is made again, latents'
/// norms are, too.
Qkv qkv(const Input& x, const AttentionWeights& weights, const AttentionConfig& config, const RotaryTable& rotary,
        double norm_eps, WeightGradQueue* queue);

/// The same for a cache (nn/kv_cache.h). Of multi-head latent attention keys are the latents: k [B, 1, S, kv_rank +
/// rope], normed and rotated, and v its first kv_rank channels.
Qkv compressed_qkv(const Input& x, const AttentionWeights& weights, const AttentionConfig& config,
                   const RotaryTable& rotary, double norm_eps);

/// Keys [B, H, S, qk] and values [B, H, S, v] of all heads from latents as compressed_qkv gives them: k and v of qkv().
Qkv expand_latents(const at::Tensor& latents, const AttentionWeights& weights, const AttentionConfig& config);

/// softmax(scale * q k^T) v, [B, H, S, qk] x [B, G, S, qk] x [B, G, S, v] -> [B, S, H*v]. `causal`: position i sees
/// positions up to i (query and key positions start together). v may be narrower than qk: it is padded with zeros,
/// which changes no bit of the kept channels and lets the fused kernel run (faster than the composite one).
at::Tensor attn_core(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal = true);

/// Lengths of the documents packed into each of B sequences, in order; those of a sequence add up to S. Empty: every
/// sequence is one document.
using Documents = std::vector<std::vector<int64_t>>;

/// Causal attention within each document, as above: a document gets what it would get as a sequence of its own, through
/// the same kernel, and the work is that of the documents' squares. No mask is made. With a `chunk` every run of so
/// many positions of a document is a document of its own (Llama-4).
at::Tensor attn_core(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                     const Documents& documents, int64_t chunk = 0);

/// o_proj(o * gate): o [B, S, H*v], gate likewise or undefined; returns [B, S, D].
at::Tensor attn_out(const at::Tensor& o, const at::Tensor& gate, const AttentionWeights& weights,
                    WeightGradQueue* queue);

}  // namespace farskip::nn
