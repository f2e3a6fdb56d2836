#pragma once
// The closed-form input map. A reader of the residual stream was trained on inputs f (the teacher's) and gets inputs s
// (the student's). Its weights W are replaced by W M, where M is the damped least-squares map from s to f:
//   M = (B + l I) (C + l I)^-1,   C = sum of s s^T,   B = sum of f s^T,   l = damping * trace(C) / D,
// which is the identity for infinite damping. No parameter is added. T tokens, D hidden size.

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "nn/weights.h"

namespace farskip {

/// What a map is fitted on, and what a map's error on other tokens follows from: sums over tokens, in fp64, whose size
/// does not grow with them.
struct InputStatistics {
  at::Tensor student_student;  ///< C [D, D]
  at::Tensor teacher_student;  ///< B [D, D]
  double teacher_squares = 0;  ///< sum of f^T f
  double num_tokens = 0;

  explicit InputStatistics(int64_t hidden_size);
  /// student, teacher [..., D] of the same tokens.
  void add(const at::Tensor& student, const at::Tensor& teacher);
  /// All sums in one tensor, to be added over ranks, and back.
  at::Tensor packed() const;
  void unpack(const at::Tensor& sums);

  /// Mean square of f - M s, over that of f. M undefined: the identity.
  double relative_error(const at::Tensor& map) const;
};

/// M [D, D] in fp64.
at::Tensor fit_input_map(const InputStatistics& statistics, double damping);

struct ChosenMap {
  at::Tensor map;             ///< undefined: no map beats the identity on held-out tokens
  double damping = 0;         ///< of the map
  double identity_error = 0;  ///< relative_error on held-out tokens without a map
  double error = 0;           ///< and with the chosen one
};

/// The map of the damping that does best on held-out tokens.
ChosenMap choose_input_map(const InputStatistics& fitted, const InputStatistics& held_out,
                           const std::vector<double>& dampings);

/// Weights of a layer that read the attention's, and the feed-forward's normed input; those that are there.
std::vector<nn::Param*> attention_readers(nn::LayerWeights& layer);
std::vector<nn::Param*> feed_forward_readers(nn::LayerWeights& layer);

/// W <- W M, in place, for a weight [..., D], in fp64 and rounded once.
void apply_input_map(const nn::Param& weight, const at::Tensor& map);

}  // namespace farskip
