#pragma once
// Where model families differ in the names of their tensors. Everything else about a tensor follows from ModelConfig.

#include <string>

#include "config/model_config.h"

namespace farskip {

/// Names below "PREFIXmodel.layers.N.". The defaults are DeepSeek's, which most families share.
struct TensorNames {
  std::string prefix;  ///< of all names; other tensors of a checkpoint belong to other models (images)
  std::string dense = "mlp";
  std::string shared = "mlp.shared_experts";
  std::string router = "mlp.gate.weight";
  std::string correction_bias = "mlp.gate.e_score_correction_bias";
  std::string experts = "mlp.experts";  ///< followed by ".E."
  // The three matrices of a routed expert: down(silu(gate(x)) * up(x)).
  std::string expert_gate = "gate_proj";
  std::string expert_up = "up_proj";
  std::string expert_down = "down_proj";
  /// Checkpoints hold the experts of a layer in two tensors, EXPERTS.gate_up_proj [E, D, 2F] and EXPERTS.down_proj
  /// [E, F, D]: each matrix transposed, gate left of up.
  bool stacked_experts = false;
};

TensorNames tensor_names(const ModelConfig& config);

}  // namespace farskip
