#pragma once
// Connectivity: which contributions to the residual stream each reader's input misses. It is a property of the model
// (it changes the function) and lives in the checkpoint's config.json; no run may change it.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace farskip {

/// What the two readers of one layer miss, as distances. Attention of layer k reads routed outputs of layers up to
/// k-1-attention_routed; its feed-forward reads routed outputs up to k-1-ff_routed and attention outputs up to
/// k-1-ff_attention. Shared experts and dense feed-forwards are never missed.
struct Skip {
  int attention_routed = 0;  ///< a: 0 misses nothing, 1 misses the layer before (FarSkip)
  int ff_routed = 0;         ///< f
  int ff_attention = -1;     ///< g: -1 misses nothing, 0 misses this layer's attention (FarSkip)

  bool operator==(const Skip&) const = default;
};

inline constexpr Skip standard_skip{0, 0, -1};
inline constexpr Skip farskip_skip{1, 0, 0};
inline constexpr Skip attn_only_skip{1, 0, -1};
inline constexpr Skip mlp_only_skip{0, 0, 0};

/// One Skip per layer.
class Connectivity {
 public:
  Connectivity() = default;
  explicit Connectivity(std::vector<Skip> layers) : layers_(std::move(layers)) {}

  static Connectivity standard(int64_t num_layers) { return uniform(num_layers, standard_skip); }
  static Connectivity farskip(int64_t num_layers) { return uniform(num_layers, farskip_skip); }
  static Connectivity uniform(int64_t num_layers, Skip skip) {
    return Connectivity(std::vector<Skip>(num_layers, skip));
  }

  /// Parses the one spelling used everywhere:
  ///   standard | farskip | attn-only | mlp-only | last=N | last=P% | layers=A-B | skip=a,f,g
  /// last=N and layers=A-B (inclusive) are FarSkip on those layers; last=P% on the last round(P/100*L), dense ones
  /// counted. Throws Error for anything else, with the list of spellings.
  static Connectivity parse(const std::string& spelling, int64_t num_layers);

  /// Reads AMD's keys (farskip, farskip_start_idx, farskip_end_idx, attn_only_farskip, mlp_only_farskip) and ours
  /// (farskip_skip: [a, f, g]) from a config.json; absent keys mean a standard model. Both *_only keys together are a
  /// contradiction and refused.
  static Connectivity from_config(const nlohmann::json& config, int64_t num_layers);
  /// Writes the same keys; from_config(to_config()) is the identity. Throws Error for a per-layer mix that no key
  /// holds.
  void to_config(nlohmann::json& config) const;

  /// The spelling, such that parse(to_string()) is the identity.
  std::string to_string() const;

  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  const Skip& layer(int64_t k) const { return layers_.at(k); }
  bool is_standard() const;
  bool operator==(const Connectivity&) const = default;

  /// Text for --help.
  static const char* help();

 private:
  std::vector<Skip> layers_;
};

}  // namespace farskip
