#pragma once
// Where model families differ in the names of their tensors. Everything else about a tensor follows from ModelConfig.

#include <string>

#include "config/model_config.h"

namespace farskip {

/// Names below "model.layers.N.". The defaults are DeepSeek's, which most families share.
struct TensorNames {
  std::string dense = "mlp";
  std::string shared = "mlp.shared_experts";
  std::string router = "mlp.gate.weight";
  std::string correction_bias = "mlp.gate.e_score_correction_bias";
  std::string experts = "mlp.experts";  ///< followed by ".E."
  // The three matrices of a routed expert: down(silu(gate(x)) * up(x)).
  std::string expert_gate = "gate_proj";
  std::string expert_up = "up_proj";
  std::string expert_down = "down_proj";
};

/// Throws Error for a family whose tensors are stored in another form.
TensorNames tensor_names(const ModelConfig& config);

}  // namespace farskip
