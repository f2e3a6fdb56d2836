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

double causal_context(int64_t seq_length, int64_t chunk) {
  const auto length = static_cast<double>(seq_length);
  if (chunk == 0 || chunk >= seq_length) return length / 2;
  const auto whole = static_cast<double>(seq_length / chunk), rest = static_cast<double>(seq_length % chunk);
  return (whole * static_cast<double>(chunk) * static_cast<double>(chunk) + rest * rest) / (2 * length);
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
  for (int64_t k = 0; k < model.num_layers(); ++k) {
    const int64_t chunk = model.attention.of_layer(k).chunk;
    flops += layer_flops(model, model.layers[k], causal_context(seq_length, chunk));
  }
  flops.head = 2.0 * model.hidden_size * model.vocab_size;
  return flops;
}

FlopRatios flop_ratios(const ModelConfig& model, int64_t seq_length) {
  TokenFlops flops;  // of all MoE layers, whose attention may differ
  for (int64_t k = 0; k < model.num_layers(); ++k) {
    if (!model.is_moe(k)) continue;
    flops += layer_flops(model, LayerKind::moe, causal_context(seq_length, model.attention.of_layer(k).chunk));
  }
  const double unit = model.has_shared() ? flops.shared : flops.routed;
  if (unit == 0) return {};
  return {flops.attention() / unit, flops.shared / unit, flops.routed / unit};
}

std::string describe_flops(const ModelConfig& model, int64_t seq_length) {
  const TokenFlops flops = model_flops(model, seq_length);
  const FlopRatios ratios = flop_ratios(model, seq_length);
  const double one_position = layer_flops(model, LayerKind::moe, 1).attention_core;
  const double context = flops.attention_core / one_position / static_cast<double>(model.num_layers());
  std::string text =
      fmt::format("FLOPs of one token's forward pass, sequences of {} (causal: {:.0f} positions on average)\n",
                  seq_length, context);
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
