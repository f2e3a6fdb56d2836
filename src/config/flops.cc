#include "config/flops.h"

#include <fmt/format.h>

namespace farskip {

TokenFlops& TokenFlops::operator+=(const TokenFlops& other) {
  attention_projections += other.attention_projections;
  attention_core += other.attention_core;
  router += other.router;
  shared += other.shared;
  routed += other.routed;
  dense += other.dense;
  head += other.head;
  return *this;
}

TokenFlops layer_flops(const ModelConfig& model, LayerKind kind, double context) {
  const AttentionConfig& attention = model.attention;
  const double hidden = static_cast<double>(model.hidden_size);
  TokenFlops flops;
  flops.attention_projections = 2.0 * attention.num_projection_weights(model.hidden_size);
  flops.attention_core = 2.0 * attention.num_heads * (attention.qk_head_dim() + attention.v_head_dim) * context;
  if (kind == LayerKind::dense) {
    flops.dense = 6.0 * hidden * model.intermediate_size;
  } else {
    flops.router = 2.0 * hidden * model.num_experts;
    flops.shared = 6.0 * hidden * model.shared_intermediate_size;
    flops.routed = 6.0 * hidden * model.moe_intermediate_size * model.top_k;
  }
  return flops;
}

TokenFlops model_flops(const ModelConfig& model, int64_t seq_length) {
  TokenFlops flops;
  for (LayerKind kind : model.layers) flops += layer_flops(model, kind, causal_context(seq_length));
  flops.head = 2.0 * model.hidden_size * model.vocab_size;
  return flops;
}

FlopRatios flop_ratios(const ModelConfig& model, int64_t seq_length) {
  const TokenFlops flops = layer_flops(model, LayerKind::moe, causal_context(seq_length));
  const double unit = model.has_shared() ? flops.shared : flops.routed;
  return {flops.attention() / unit, flops.shared / unit, flops.routed / unit};
}

std::string describe_flops(const ModelConfig& model, int64_t seq_length) {
  const TokenFlops flops = model_flops(model, seq_length);
  const FlopRatios ratios = flop_ratios(model, seq_length);
  std::string text =
      fmt::format("FLOPs of one token's forward pass, sequences of {} (causal: {:.0f} positions on average)\n",
                  seq_length, causal_context(seq_length));
  const auto line = [&](const char* name, double value) {
    if (value > 0) text += fmt::format("  {:<22}{:>12.4g}{:>8.1f} %\n", name, value, 100 * value / flops.total());
  };
  line("attention projections", flops.attention_projections);
  line("attention core", flops.attention_core);
  line("router", flops.router);
  line("shared experts", flops.shared);
  line("routed experts", flops.routed);
  line("dense feed-forward", flops.dense);
  line("head", flops.head);
  text += fmt::format("  {:<22}{:>12.4g}\n", "total", flops.total());
  text += fmt::format("  MoE layer, attention : shared : routed = {:.2f} : {:.2f} : {:.2f}\n", ratios.attention,
                      ratios.shared, ratios.routed);
  return text;
}

}  // namespace farskip
