#include "distill/map_site.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "distill/linear_map.h"

namespace farskip {
namespace {

MappedWeights present(MappedWeights all) {
  std::erase_if(all, [](const nn::Param* param) { return !param->value.defined(); });
  return all;
}

void apply(const nn::Param& weight, MapSite site, const at::Tensor& map) {
  if (is_output(site)) {
    apply_output_map(weight, map);
  } else {
    apply_input_map(weight, map);
  }
}

}  // namespace

std::string_view to_string(MapSite site) {
  constexpr std::string_view names[] = {"attention input", "attention output",    "feed-forward input", "expert inputs",
                                        "expert outputs",  "feed-forward output", "layer output",       "head input"};
  return names[static_cast<size_t>(site)];
}

std::vector<MappedWeights> weights_of_parts(nn::ModelWeights& weights, int64_t layer, MapSite site) {
  if (site == MapSite::head_input) return {{&weights.lm_head}};
  auto& [input_norm, a, post_norm, dense, moe] = weights.layers.at(static_cast<size_t>(layer));
  switch (site) {
    case MapSite::attention_input:
      return {present({&a.q_proj, &a.q_a_proj, &a.kv_a_proj_with_mqa, &a.k_proj, &a.v_proj, &a.gate_proj})};
    case MapSite::attention_output:
      return {present({&a.o_proj, &a.o_bias})};
    case MapSite::feed_forward_input:
      return {present({&moe.router, &moe.shared.gate_up, &dense.gate_up})};
    case MapSite::expert_input:
      return {present({&moe.gate_up})};
    case MapSite::expert_output:
      return {present({&moe.down})};
    case MapSite::layer_output:
      return {present({&a.o_proj, &a.o_bias}), present({&moe.down, &dense.down}), present({&moe.shared.down})};
    default:
      return {present({&moe.down, &dense.down}), present({&moe.shared.down})};
  }
}

void apply_maps(nn::ModelWeights& weights, int64_t layer, MapSite site, const std::vector<at::Tensor>& maps) {
  const std::vector<MappedWeights> parts = weights_of_parts(weights, layer, site);
  FARSKIP_CHECK(maps.size() <= parts.size());
  for (size_t i = 0; i < maps.size(); ++i) {
    for (const nn::Param* weight : parts[i]) apply(*weight, site, maps[i]);
  }
}

void apply_expert_maps(nn::ModelWeights& weights, int64_t layer, MapSite site, const std::vector<at::Tensor>& maps) {
  const std::vector<MappedWeights> parts = weights_of_parts(weights, layer, site);
  for (const nn::Param* weight : parts.at(0)) {
    FARSKIP_CHECK(weight->value.size(0) == std::ssize(maps));
    for (size_t e = 0; e < maps.size(); ++e) {
      if (maps[e].defined()) apply({weight->value[static_cast<int64_t>(e)]}, site, maps[e]);
    }
  }
}

}  // namespace farskip
