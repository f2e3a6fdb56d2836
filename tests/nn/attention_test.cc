#include "nn/attention.h"

#include "check_function.h"

namespace farskip::nn {
namespace {

constexpr int64_t hidden = 16, length = 7, num_heads = 4;

at::Tensor rms(const at::Tensor& x, const at::Tensor& w, double eps) {
  return w * x / (x.square().mean(-1, true) + eps).sqrt();
}

/// x [B, S, H, d] -> the same, rotated, by complex numbers.
at::Tensor rotated(const at::Tensor& x, bool interleaved) {
  const int64_t dim = x.size(-1);
  const at::Tensor pairs =
      interleaved ? x.unflatten(-1, {dim / 2, 2}) : x.unflatten(-1, {2, dim / 2}).transpose(-1, -2);
  const at::Tensor frequency = at::pow(10000.0, at::arange(dim / 2, at::kDouble) * (-2.0 / dim));
  const at::Tensor angle = at::outer(at::arange(x.size(1), at::kDouble), frequency).unsqueeze(1);
  const at::Tensor turned =
      at::view_as_real(at::view_as_complex(pairs.contiguous()) * at::polar(at::ones_like(angle), angle));
  return interleaved ? turned.flatten(-2) : turned.transpose(-1, -2).flatten(-2);
}

/// q, k, v [B, S, H, d] -> [B, S, H*v], with the mask written out.
at::Tensor reference_core(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal) {
  at::Tensor scores = at::einsum("bihd,bjhd->bhij", {q, k}) * scale;
  if (causal) {
    const at::Tensor future = at::ones({q.size(1), q.size(1)}, at::kBool).triu(1);
    scores = scores.masked_fill(future, -1e30);
  }
  return at::einsum("bhij,bjhd->bihd", {scores.softmax(-1), v}).flatten(2);
}

AttentionConfig latent_config(int64_t q_rank, bool gated) {
  AttentionConfig config;
  config.kind = AttentionKind::mla;
  config.num_heads = config.num_kv_heads = num_heads;
  config.q_lora_rank = q_rank;
  config.kv_lora_rank = 12;
  config.qk_nope_head_dim = 8;
  config.qk_rope_head_dim = 4;
  config.v_head_dim = 6;
  config.gated = gated;
  config.rotary.interleaved = true;
  return config;
}

/// The three stages in a row.
at::Tensor whole_attention(const at::Tensor& x, const AttentionWeights& weights, const AttentionConfig& config,
                           WeightGradQueue* queue) {
  const RotaryTable table = make_rotary(config.rotary, config.qk_rope_head_dim, x.size(1));
  const Qkv parts = qkv(x, weights, config, table, 1e-3, queue);
  EXPECT_EQ(parts.gate.defined(), config.gated);
  const at::Tensor o = attn_core(parts.q, parts.k, parts.v, config.softmax_scale());
  return attn_out(o, parts.gate, weights, queue);
}

at::Tensor reference_latent(const at::Tensor& x, const at::Tensor& q, const std::vector<at::Tensor>& w, bool gated) {
  // w: kv_a, kv_a_norm, kv_b, o, gate
  const at::Tensor latent = x.matmul(w[0].t());
  const at::Tensor kv = rms(latent.slice(-1, 0, 12), w[1], 1e-6).matmul(w[2].t()).unflatten(-1, {num_heads, 14});
  const at::Tensor k_rope = rotated(latent.slice(-1, 12, 16).unsqueeze(2), true).expand({-1, -1, num_heads, -1});
  const at::Tensor q_heads = q.unflatten(-1, {num_heads, 12});
  const at::Tensor o =
      reference_core(at::cat({q_heads.slice(-1, 0, 8), rotated(q_heads.slice(-1, 8, 12), true)}, -1),
                     at::cat({kv.slice(-1, 0, 8), k_rope}, -1), kv.slice(-1, 8, 14), 1 / std::sqrt(12.0), true);
  return (gated ? o * x.matmul(w[4].t()).sigmoid() : o).matmul(w[3].t());
}

const std::vector<at::Tensor> latent_weights() {
  return {random({16, hidden}, 1, 0.4), 1 + random({12}, 2, 0.2), random({num_heads * 14, 12}, 3, 0.4),
          random({hidden, num_heads * 6}, 4, 0.3), random({num_heads * 6, hidden}, 5, 0.3)};
}

AttentionWeights latent_params(const std::vector<Param>& p) {
  AttentionWeights weights;
  weights.kv_a_proj_with_mqa = p[0];
  weights.kv_a_layernorm = p[1];
  weights.kv_b_proj = p[2];
  weights.o_proj = p[3];
  return weights;
}

TEST(LatentAttention, GatedWithoutQueryLora) {
  auto params = latent_weights();
  params.push_back(random({num_heads * 12, hidden}, 6, 0.4));
  check_function(
      {{random({2, length, hidden}, 9)}, params},
      [](auto& x, auto& p, auto* queue) {
        AttentionWeights weights = latent_params(p);
        weights.gate_proj = p[4];
        weights.q_proj = p[5];
        return std::vector{whole_attention(x[0], weights, latent_config(0, true), queue)};
      },
      [](auto& x, auto& w) { return std::vector{reference_latent(x[0], x[0].matmul(w[5].t()), w, true)}; },
      with_products());
}

TEST(LatentAttention, QueryLora) {
  auto params = latent_weights();
  params.pop_back();
  params.insert(params.end(),
                {random({10, hidden}, 6, 0.4), 1 + random({10}, 7, 0.2), random({num_heads * 12, 10}, 8, 0.4)});
  check_function(
      {{random({2, length, hidden}, 9)}, params},
      [](auto& x, auto& p, auto* queue) {
        AttentionWeights weights = latent_params(p);
        weights.q_a_proj = p[4];
        weights.q_a_layernorm = p[5];
        weights.q_b_proj = p[6];
        return std::vector{whole_attention(x[0], weights, latent_config(10, false), queue)};
      },
      [](auto& x, auto& w) {
        const at::Tensor q = rms(x[0].matmul(w[4].t()), w[5], 1e-6).matmul(w[6].t());
        return std::vector{reference_latent(x[0], q, w, false)};
      },
      with_products());
}

enum class QkNorm { none, per_head, all_heads };

void check_grouped(QkNorm kind) {
  constexpr int64_t groups = 2, dim = 8;
  const int64_t q_norm = kind == QkNorm::all_heads ? num_heads * dim : dim;
  const int64_t k_norm = kind == QkNorm::all_heads ? groups * dim : dim;
  std::vector<at::Tensor> params = {
      random({num_heads * dim, hidden}, 1, 0.4), random({groups * dim, hidden}, 2, 0.4),
      random({groups * dim, hidden}, 3, 0.4),    random({hidden, num_heads * dim}, 4, 0.3),
      random({num_heads * dim}, 5, 0.3),         random({hidden}, 6, 0.3)};
  if (kind != QkNorm::none) params.insert(params.end(), {1 + random({q_norm}, 7, 0.2), 1 + random({k_norm}, 8, 0.2)});
  AttentionConfig config;
  config.num_heads = num_heads;
  config.num_kv_heads = groups;
  config.qk_rope_head_dim = config.v_head_dim = dim;
  config.qk_norm = kind == QkNorm::per_head;
  config.qk_norm_all_heads = kind == QkNorm::all_heads;
  config.bias = true;

  auto heads = [&](const at::Tensor& x, const at::Tensor* w, int64_t num) {
    at::Tensor y = kind == QkNorm::all_heads ? rms(x, *w, 1e-3) : x;
    y = y.unflatten(-1, {num, dim});
    if (kind == QkNorm::per_head) y = rms(y, *w, 1e-3);
    return rotated(y, false).repeat_interleave(num_heads / num, 2);
  };
  check_function(
      {{random({2, length, hidden}, 9)}, params},
      [&](auto& x, auto& p, auto* queue) {
        AttentionWeights weights;
        weights.q_proj = p[0];
        weights.k_proj = p[1];
        weights.v_proj = p[2];
        weights.o_proj = p[3];
        weights.q_bias = p[4];
        weights.o_bias = p[5];
        if (kind != QkNorm::none) {
          weights.q_norm = p[6];
          weights.k_norm = p[7];
        }
        return std::vector{whole_attention(x[0], weights, config, queue)};
      },
      [&](auto& x, auto& w) {
        const bool normed = kind != QkNorm::none;
        const at::Tensor q = heads(x[0].matmul(w[0].t()) + w[4], normed ? &w[6] : nullptr, num_heads);
        const at::Tensor k = heads(x[0].matmul(w[1].t()), normed ? &w[7] : nullptr, groups);
        const at::Tensor v = x[0].matmul(w[2].t()).unflatten(-1, {groups, dim}).repeat_interleave(2, 2);
        const at::Tensor o = reference_core(q, k, v, 1 / std::sqrt(8.0), true);
        return std::vector{o.matmul(w[3].t()) + w[5]};
      },
      with_products());
}

TEST(GroupedAttention, WithBias) { check_grouped(QkNorm::none); }
TEST(GroupedAttention, NormPerHead) { check_grouped(QkNorm::per_head); }
TEST(GroupedAttention, NormOverAllHeads) { check_grouped(QkNorm::all_heads); }

/// fp32 and bf16 run in kernels of our own where the processor has them: same bits on one and two threads. fp64 is
/// always the library's attention, whose backward is made of MKL's products: those sum in another order on two threads
/// than on one. (Each number of threads repeats its own bits; with MKL_CBWR=AVX512,STRICT one and two agree.) Gradients
/// differ by up to 1.4e-15 where measured; sums of 150 terms may by some 150 times 1.1e-16.
TEST(AttnCore, LongSequencesAndBothMasks) {
  for (const bool causal : {true, false}) {
    auto heads_first = [](const at::Tensor& x) { return x.transpose(1, 2); };
    check_function(
        {{random({1, 4, 150, 24}, 1), random({1, 4, 150, 24}, 2), random({1, 4, 150, 16}, 3)}, {}},
        [&](auto& x, auto&, auto*) { return std::vector{attn_core(x[0], x[1], x[2], 0.3, causal)}; },
        [&](auto& x, auto&) {
          return std::vector{reference_core(heads_first(x[0]), heads_first(x[1]), heads_first(x[2]), 0.3, causal)};
        },
        {.two_threads_fp64 = 1e-14});
  }
}

TEST(AttnCore, FirstPositionSeesItselfOnly) {
  const at::Tensor v = random({1, 2, 5, 4}, 3).to(at::kFloat);
  const at::Tensor o =
      attn_core(random({1, 2, 5, 4}, 1).to(at::kFloat), random({1, 2, 5, 4}, 2).to(at::kFloat), v, 1.0);
  EXPECT_LE(relative_difference(o[0][0], v[0].select(1, 0).flatten()), 1e-6);
}

}  // namespace
}  // namespace farskip::nn
