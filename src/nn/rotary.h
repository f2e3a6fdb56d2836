#pragma once
// Rotary position embedding (arXiv 2104.09864), with YaRN's context extension (arXiv 2309.00071) as DeepSeek applies
// it, or Llama 3's; and what positions mean to layers that do not rotate.

#include <ATen/core/Tensor.h>

#include "config/model_config.h"

namespace farskip::nn {

/// cos and sin of every position's angles, one per pair of channels: [S, dim/2], or [B, 1, S, dim/2] where sequences
/// have positions of their own; fp32 (rounded from fp64).
struct RotaryTable {
  at::Tensor cos, sin;
  bool interleaved = false;  ///< pairs are (0,1), (2,3), ... instead of (0, dim/2), (1, dim/2+1), ...
  at::Tensor temperature;    ///< factor of unrotated queries, [S, 1] or [B, 1, S, 1] fp32; undefined: none

  /// Whether heads are rotated; in a table without angles cos and sin are undefined.
  bool rotates() const { return cos.defined(); }
  RotaryTable without_angles() const { return {{}, {}, interleaved, temperature}; }

  /// The rows of `num` positions from `first` on, sharing memory.
  RotaryTable positions(int64_t first, int64_t num) const;
  /// The rows of `positions_BS` [B, S] int64, copied. REQUIRES: a table of all positions [S, dim/2].
  RotaryTable positions(const at::Tensor& positions_BS) const;
};

/// Angular frequency of each pair, fp64 [dim/2]: theta^(-2i/dim); under YaRN pairs that turn less than beta_slow times
/// in the original context are slowed by `factor`, those that turn more than beta_fast times are kept, and a linear
/// ramp lies between (linear in the pair's index; in Llama 3's form in its number of turns).
std::vector<double> rotary_frequencies(const RotaryConfig& config, int64_t dim);

/// Table of positions 0 .. num_positions-1. Under YaRN cos and sin are multiplied by m(mscale) / m(mscale_all_dim).
RotaryTable make_rotary(const RotaryConfig& config, int64_t dim, int64_t num_positions, at::Device device = at::kCPU);

/// Heads as attention reads them: [plain | rotated rope], moved in front of the sequence. `plain` [B, S, H, n] or
/// undefined; `rope` [B, S, H, r], or [B, S, 1, r] to be shared by all heads (MLA's key); returns [B, H, S, n + r].
/// Channels keep their order: the interleaved form rotates neighbours in place, which gives the same scores as first
/// sorting them into halves, in q and k alike, as Hugging Face does. Rotated in fp32, rounded once. The table has S
/// rows.
at::Tensor rotate_heads(const at::Tensor& plain, const at::Tensor& rope, const RotaryTable& table);

}  // namespace farskip::nn
