#include "model/tensor_names.h"

#include "base/error.h"

namespace farskip {

TensorNames tensor_names(const ModelConfig& config) {
  TensorNames names;
  if (config.model_type == "mixtral") {
    names.router = "block_sparse_moe.gate.weight";
    names.experts = "block_sparse_moe.experts";
    names.expert_gate = "w1";
    names.expert_up = "w3";
    names.expert_down = "w2";
  } else if (config.model_type.rfind("llama4", 0) == 0) {
    fail("{}: its experts are stored stacked and transposed, which is not supported yet", config.architecture);
  }
  return names;
}

}  // namespace farskip
