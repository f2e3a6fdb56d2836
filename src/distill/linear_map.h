#pragma once
// Closed-form maps of weights. What a student computes, s, is brought nearer to what its teacher computes, f, by the
// damped least-squares map from s to f:
//   M = (B + l P) (C + l I)^-1,   C = sum of s s^T,   B = sum of f s^T,   l = damping * trace(C) / N,
// which is P, "as it is", for infinite damping. A reader of s then has W M for its weights W (an input map, N = D), and
// the writers of the parts of s = [s_1, s_2, ...], whose sum enters the residual stream, have M_i W (output maps, N a
// multiple of D, P = [I, I, ...]). A map of some of the tokens, an expert's, takes for P the one of them all. No
// parameter is added. T tokens, D hidden size.

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/weights.h"

namespace farskip {

/// What a map is fitted on, and what a map's error on other tokens follows from: sums over tokens, in fp64, whose size
/// does not grow with them.
struct MapStatistics {
  at::Tensor student_student;  ///< C [N, N]
  at::Tensor teacher_student;  ///< B [D, N]
  double teacher_squares = 0;  ///< sum of f^T f
  double num_tokens = 0;
  at::Tensor prior;  ///< P [D, N]

  /// For `num_parts` parts of s, each of `hidden_size`.
  explicit MapStatistics(int64_t hidden_size, int64_t num_parts = 1);
  /// student [..., N], teacher [..., D] of the same tokens.
  void add(const at::Tensor& student, const at::Tensor& teacher);
  /// All sums in one tensor, to be added over ranks, and back.
  at::Tensor packed() const;
  void unpack(const at::Tensor& sums);

  /// Mean square of f - M s, over that of f. M undefined: P.
  double relative_error(const at::Tensor& map) const;
};

/// M [D, N] in fp64.
at::Tensor fit_map(const MapStatistics& statistics, double damping);

struct ChosenMap {
  at::Tensor map;             ///< undefined: no map beats P on held-out tokens
  double damping = 0;         ///< of the map
  double identity_error = 0;  ///< relative_error on held-out tokens without a map
  double error = 0;           ///< and with the chosen one
  /// The student computes what its teacher computes: there is nothing to map.
  bool agrees() const { return identity_error < 1e-9; }
};

/// The map of the damping that does best on held-out tokens. REQUIRES: both have one prior.
ChosenMap choose_map(const MapStatistics& fitted, const MapStatistics& held_out, const std::vector<double>& dampings);

/// W <- W M, in place, for a weight [..., D], in fp64 and rounded once.
void apply_input_map(const nn::Param& weight, const at::Tensor& map);
/// W <- M W, in place, for a weight [..., D, F] or a bias [D], in fp64 and rounded once.
void apply_output_map(const nn::Param& weight, const at::Tensor& map);

}  // namespace farskip
