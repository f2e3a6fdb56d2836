#include "nn/attention.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "nn/flash_attention.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/sigmoid.h"

namespace farskip::nn {
namespace {

/// [B, S, H*d] -> [B, S, H, d].
at::Tensor split_heads(const at::Tensor& x, int64_t num_heads) {
  return x.unflatten(-1, {num_heads, x.size(-1) / num_heads});
}

at::Tensor latent_queries(const Input& x, const AttentionWeights& weights, const AttentionConfig& config,
                          const RotaryTable& rotary, WeightGradQueue* queue) {
  const bool recompute = static_cast<bool>(x.again);
  at::Tensor q;
  if (config.q_lora_rank > 0) {
    const at::Tensor latent = linear(x, weights.q_a_proj, weights.q_a_bias, queue);
    q = linear(normed(latent, weights.q_a_layernorm, config.latent_norm_eps, queue, recompute), weights.q_b_proj,
               queue);
  } else {
    q = linear(x, weights.q_proj, weights.q_bias, queue);
  }
  const auto parts =
      split_heads(q, config.num_heads).split_with_sizes({config.qk_nope_head_dim, config.qk_rope_head_dim}, -1);
  return rotate_heads(parts[0], parts[1], rotary);
}

struct Latents {
  Input plain;      ///< [B, S, kv_rank], normed
  at::Tensor rope;  ///< [B, S, 1, rope], not rotated yet
};

Latents latents(const Input& x, const AttentionWeights& weights, const AttentionConfig& config,
                WeightGradQueue* queue) {
  const at::Tensor both = linear(x, weights.kv_a_proj_with_mqa, weights.kv_a_bias, queue);
  const auto parts = both.split_with_sizes({config.kv_lora_rank, config.qk_rope_head_dim}, -1);
  const bool recompute = static_cast<bool>(x.again);
  return {normed(parts[0], weights.kv_a_layernorm, config.latent_norm_eps, queue, recompute), parts[1].unsqueeze(2)};
}

/// The parts [B, S, H, nope] of keys and [B, S, H, v] of values that latents hold.
std::vector<at::Tensor> up(const Input& plain, const AttentionWeights& weights, const AttentionConfig& config,
                           WeightGradQueue* queue) {
  return split_heads(linear(plain, weights.kv_b_proj, queue), config.num_heads)
      .split_with_sizes({config.qk_nope_head_dim, config.v_head_dim}, -1);
}

void latent_qkv(Qkv& out, const Input& x, const AttentionWeights& weights, const AttentionConfig& config,
                const RotaryTable& rotary, WeightGradQueue* queue) {
  out.q = latent_queries(x, weights, config, rotary, queue);
  const Latents latent = latents(x, weights, config, queue);
  const auto parts = up(latent.plain, weights, config, queue);
  out.k = rotate_heads(parts[0], latent.rope, rotary);
  out.v = parts[1].transpose(1, 2).contiguous();  // a view would keep the keys' half alive
}

void grouped_query_qkv(Qkv& out, const Input& x, const AttentionWeights& weights, const AttentionConfig& config,
                       const RotaryTable& rotary, double norm_eps, WeightGradQueue* queue) {
  auto heads = [&](const Param& proj, const Param& bias, const Param& norm, int64_t num_heads) {
    at::Tensor projected = linear(x, proj, bias, queue);
    if (config.qk_norm_all_heads) {
      projected = rms_norm(projected, norm, norm_eps, queue);
      const int64_t width = num_heads * config.qk_head_dim();
      if (projected.size(-1) > width) {  // of all ranks
        projected = projected.narrow(-1, config.first_head / config.num_heads * width, width);
      }
    }
    projected = split_heads(projected, num_heads);
    if (config.qk_norm) projected = rms_norm(projected, norm, norm_eps, queue);
    if (!rotary.rotates()) return projected.transpose(1, 2);
    const at::Tensor rotated = rotate_heads(at::Tensor(), projected, rotary);
    return config.qk_l2_norm ? rms_norm(rotated, norm_eps) : rotated;
  };
  out.q = heads(weights.q_proj, weights.q_bias, weights.q_norm, config.num_heads);
  out.k = heads(weights.k_proj, weights.k_bias, weights.k_norm, config.num_kv_heads);
  out.v = split_heads(linear(x, weights.v_proj, weights.v_bias, queue), config.num_kv_heads).transpose(1, 2);
  if (!rotary.rotates() && rotary.temperature.defined()) out.q = (out.q * rotary.temperature).to(out.v.scalar_type());
}

/// Each document in runs of `chunk` positions, the last shorter; [B] sequences of S positions where it is one.
Documents in_chunks(const Documents& documents, int64_t num_sequences, int64_t length, int64_t chunk) {
  Documents result = documents.empty() ? Documents(num_sequences, std::vector<int64_t>{length}) : documents;
  for (auto& sequence : result) {
    std::vector<int64_t> pieces;
    for (int64_t left : sequence) {
      for (; left > 0; left -= chunk) pieces.push_back(std::min(left, chunk));
    }
    sequence = std::move(pieces);
  }
  return result;
}

/// v, padded with zeros to the width of q.
at::Tensor as_wide_as(const at::Tensor& q, const at::Tensor& v) {
  const int64_t missing = q.size(-1) - v.size(-1);
  FARSKIP_CHECK(missing >= 0, "value heads wider than query heads");
  return missing == 0 ? v : at::constant_pad_nd(v, {0, missing});
}

/// Heads of one width -> [B, S, H, d].
at::Tensor fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal) {
  const bool grouped = q.size(1) != k.size(1);
  return at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal, scale, grouped).transpose(1, 2);
}

}  // namespace

Qkv qkv(const Input& x, const AttentionWeights& weights, const AttentionConfig& config, const RotaryTable& rotary,
        double norm_eps, WeightGradQueue* queue) {
  Qkv out;
  if (config.kind == AttentionKind::mla) {
    latent_qkv(out, x, weights, config, rotary, queue);
  } else {
    grouped_query_qkv(out, x, weights, config, rotary, norm_eps, queue);
  }
  if (config.gated) out.gate = nn::sigmoid(linear(x, weights.gate_proj, queue));
  return out;
}

Qkv compressed_qkv(const Input& x, const AttentionWeights& weights, const AttentionConfig& config,
                   const RotaryTable& rotary, double norm_eps) {
  if (config.kind != AttentionKind::mla) return qkv(x, weights, config, rotary, norm_eps, nullptr);
  Qkv out;
  out.q = latent_queries(x, weights, config, rotary, nullptr);
  const Latents latent = latents(x, weights, config, nullptr);
  out.k = rotate_heads(latent.plain.value.unsqueeze(2), latent.rope, rotary);
  out.v = out.k.narrow(-1, 0, config.kv_lora_rank);
  if (config.gated) out.gate = nn::sigmoid(linear(x, weights.gate_proj, nullptr));
  return out;
}

Qkv expand_latents(const at::Tensor& latents, const AttentionWeights& weights, const AttentionConfig& config) {
  const at::Tensor latent_BSr = latents.squeeze(1).narrow(-1, 0, config.kv_lora_rank);
  const auto parts = up(latent_BSr, weights, config, nullptr);
  const at::Tensor rope = latents.narrow(-1, config.kv_lora_rank, config.qk_rope_head_dim);
  Qkv out;
  out.k = at::cat({parts[0].transpose(1, 2), rope.expand({-1, config.num_heads, -1, -1})}, -1);
  out.v = parts[1].transpose(1, 2);
  return out;
}

at::Tensor attn_core(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal) {
  if (has_flash_attention(q)) {
    std::vector<Segment> sequences;
    for (int64_t b = 0; b < q.size(0); ++b) sequences.push_back({b, 0, q.size(2)});
    return flash_attention(q, k, v, scale, causal, sequences);
  }
  return fused(q, k, as_wide_as(q, v), scale, causal).narrow(-1, 0, v.size(-1)).flatten(2);
}

at::Tensor attn_core(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                     const Documents& documents, int64_t chunk) {
  if (chunk > 0 && chunk < q.size(2)) {
    return attn_core(q, k, v, scale, in_chunks(documents, q.size(0), q.size(2), chunk));
  }
  if (documents.empty()) return attn_core(q, k, v, scale);
  FARSKIP_CHECK(static_cast<int64_t>(documents.size()) == q.size(0), "documents of another number of sequences");
  if (has_flash_attention(q)) {
    std::vector<Segment> segments;
    for (size_t b = 0; b < documents.size(); ++b) {
      int64_t begin = 0;
      for (int64_t length : documents[b]) {
        segments.push_back({static_cast<int64_t>(b), begin, length});
        begin += length;
      }
      if (begin != q.size(2))
        fail("sequence {}: its documents have {} positions, the sequence has {}", b, begin, q.size(2));
    }
    return flash_attention(q, k, v, scale, true, segments);
  }
  // Splitting and joining are one node of the autograd graph each, whatever the number of documents.
  const auto q_B = q.split(1), k_B = k.split(1), v_B = as_wide_as(q, v).split(1);
  std::vector<at::Tensor> parts_nHd;
  for (size_t b = 0; b < documents.size(); ++b) {
    const auto q_D = q_B[b].split_with_sizes(documents[b], 2), k_D = k_B[b].split_with_sizes(documents[b], 2),
               v_D = v_B[b].split_with_sizes(documents[b], 2);
    for (size_t d = 0; d < q_D.size(); ++d) parts_nHd.push_back(fused(q_D[d], k_D[d], v_D[d], scale, true).squeeze(0));
  }
  return at::cat(parts_nHd).narrow(-1, 0, v.size(-1)).flatten(1).unflatten(0, {q.size(0), q.size(2)});
}

at::Tensor attn_out(const at::Tensor& o, const at::Tensor& gate, const AttentionWeights& weights,
                    WeightGradQueue* queue) {
  return linear(gate.defined() ? o * gate : o, weights.o_proj, weights.o_bias, queue);
}

}  // namespace farskip::nn
