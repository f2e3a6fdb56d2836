#include "model/tensor_names.h"

namespace farskip {

TensorNames tensor_names(const ModelConfig& config) {
  TensorNames names;
  if (config.model_type == "mixtral") {
    names.router = "block_sparse_moe.gate.weight";
    names.experts = "block_sparse_moe.experts";
    names.expert_gate = "w1";
    names.expert_up = "w3";
    names.expert_down = "w2";
  } else if (config.architecture.rfind("Llama4", 0) == 0) {
    if (config.architecture == "Llama4ForConditionalGeneration") names.prefix = "language_model.";
    names.dense = "feed_forward";
    names.shared = "feed_forward.shared_expert";
    names.router = "feed_forward.router.weight";
    names.experts = "feed_forward.experts";
    names.stacked_experts = true;
  }
  return names;
}

}  // namespace farskip
