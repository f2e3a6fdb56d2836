#pragma once
// Where calibration maps weights, and which weights those are.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "nn/weights.h"

namespace farskip {

enum class MapSite {
  attention_input,
  attention_output,    ///< where this layer's feed-forward reads it
  feed_forward_input,  ///< router, shared experts, dense; routed experts where they have no maps of their own
  expert_input,        ///< of each routed expert
  expert_output,       ///< of each routed expert
  feed_forward_output,
  layer_output,  ///< of attention and feed-forward, where the latter does not read the former
  head_input,
};
std::string_view to_string(MapSite site);
constexpr bool is_output(MapSite site) {
  return site == MapSite::attention_output || site == MapSite::expert_output || site == MapSite::feed_forward_output ||
         site == MapSite::layer_output;
}

using MappedWeights = std::vector<const nn::Param*>;

/// The weights of a site that are there, by the part of its student's values that they read or write: of an output,
/// attention's, the routed (or dense) and the shared part, as far as it has them. `layer`: the number of layers for the
/// head.
std::vector<MappedWeights> weights_of_parts(nn::ModelWeights& weights, int64_t layer, MapSite site);

/// Applies the map [D, D] of each part to its weights.
void apply_maps(nn::ModelWeights& weights, int64_t layer, MapSite site, const std::vector<at::Tensor>& maps);
/// Applies the maps of this rank's experts; undefined ones leave their expert as it is.
void apply_expert_maps(nn::ModelWeights& weights, int64_t layer, MapSite site, const std::vector<at::Tensor>& maps);

}  // namespace farskip
