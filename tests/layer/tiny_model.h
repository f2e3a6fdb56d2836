#pragma once
// Small models as plain values, and graphs of them, for the tests of layer, schedule and sim.

#include <gtest/gtest.h>

#include <string>

#include "layer/stage_graph.h"
#include "tests/base/error_of.h"

namespace farskip::testing {

/// One letter a layer: "dmmdm" is dense, MoE, MoE, dense, MoE.
inline ModelConfig tiny_model(const std::string& kinds, bool shared = true) {
  ModelConfig model;
  model.vocab_size = 256;
  model.hidden_size = 64;
  model.intermediate_size = 160;
  model.moe_intermediate_size = 32;
  model.shared_intermediate_size = shared ? 64 : 0;
  model.num_experts = 8;
  model.top_k = 2;
  model.max_position_embeddings = 1024;
  model.attention.num_heads = model.attention.num_kv_heads = 4;
  model.attention.qk_rope_head_dim = model.attention.v_head_dim = 16;
  for (char kind : kinds) model.layers.push_back(kind == 'm' ? LayerKind::moe : LayerKind::dense);
  return model;
}

struct GraphCase {
  std::string kinds = "dmmm";
  std::string connectivity = "farskip";
  Phase phase = Phase::train;
  std::string layout = "ep=2,dp=1";
  bool shared = true;
  int num_microbatches = 1;
  Scope scope = Scope::step;

  ModelConfig model() const { return tiny_model(kinds, shared); }
  StageGraph graph() const {
    const auto spelled = Connectivity::parse(connectivity, static_cast<int64_t>(kinds.size()));
    return build_graph(model(), spelled, {phase, Layout::parse(layout), num_microbatches, scope});
  }
  std::string describe() const {
    return fmt::format("{} {} {} {} shared={} microbatches={} scope={}", kinds, connectivity, to_string(phase), layout,
                       shared, num_microbatches, static_cast<int>(scope));
  }
};

/// Every kind of model, connectivity and layout: what must hold for any graph is checked on all of them.
inline std::vector<GraphCase> many_cases() {
  std::vector<GraphCase> cases;
  struct Form {
    Phase phase;
    const char* layout;
  };
  constexpr Form forms[] = {{Phase::train, "ep=2,dp=2"},
                            {Phase::train, "ep=1"},
                            {Phase::prefill, "tp=2"},
                            {Phase::prefill, "ep=4"},
                            {Phase::decode, "ep=2,dp=1,exchange=a2a"}};
  for (const char* kinds : {"dmmmm", "mmdmmd", "mm", "ddd"}) {
    for (const char* connectivity : {"standard", "farskip", "attn-only", "mlp-only", "last=2", "layers=1-1",
                                     "skip=2,1,0", "skip=3,0,2", "skip=2,1,0@1-1"}) {
      for (const Form& form : forms) {
        for (bool shared : {true, false}) {
          GraphCase made{kinds, connectivity, form.phase, form.layout, shared};
          cases.push_back(made);
          if (form.phase != Phase::train) continue;
          made.scope = Scope::gradients;
          made.num_microbatches = 3;
          cases.push_back(made);
        }
      }
    }
  }
  return cases;
}

}  // namespace farskip::testing
