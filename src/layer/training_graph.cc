#include "layer/training_graph.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"

namespace farskip {
namespace {

Recompute recompute_of(const TrainConfig& config, const ModelConfig& model) {
  Recompute recompute;
  if (config.recompute_granularity == RecomputeGranularity::full) {
    const int64_t layers = model.num_layers();
    const int64_t asked = config.recompute_num_layers == 0 ? layers : config.recompute_num_layers;
    recompute.num_layers = static_cast<int>(std::min(asked, layers));
  } else if (config.recompute_granularity == RecomputeGranularity::selective) {
    std::istringstream modules(config.recompute_modules);
    for (std::string module; modules >> module;) {
      bool* chosen = module == "core_attn"   ? &recompute.core_attn
                     : module == "layernorm" ? &recompute.layernorm
                     : module == "moe_act"   ? &recompute.moe_act
                                             : nullptr;
      if (chosen == nullptr)
        fail("recompute_modules: '{}' is unknown; expected core_attn, layernorm or moe_act", module);
      *chosen = true;
    }
  }
  return recompute;
}

}  // namespace

GraphOptions training_graph(const TrainConfig& config, const ModelConfig& model,
                            const std::optional<Connectivity>& teacher) {
  GraphOptions options;
  options.layout = Layout::parse(config.layout);
  options.num_microbatches = static_cast<int>(config.num_microbatches());
  options.shard_optimizer = config.use_distributed_optimizer;
  options.recompute = recompute_of(config, model);
  options.expert_load =
      config.moe_router_load_balancing_type == LoadBalancing::global_aux_loss && config.aux_loss_alpha(model) > 0;
  options.teacher = teacher;
  options.match_streams = teacher && config.distill.hidden_weight > 0;
  options.match_routes = teacher && config.distill.router_weight > 0;
  return options;
}

}  // namespace farskip
