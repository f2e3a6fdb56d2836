#pragma once
// Logits by the kernels of training: no cache, every position computed anew.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>
#include <vector>

#include "exec/executor.h"
#include "model/checkpoint.h"
#include "nn/loss.h"
#include "transport/loopback.h"

namespace farskip::testing {

/// Of every position of one sequence, [S, V], by a checkpoint in fp32.
inline at::Tensor sequence_logits(const std::string& folder, const std::vector<int32_t>& ids) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = load_model_config(folder);
  ParameterSet parameters(std::make_shared<const ParameterTable>(config), {.keep_main = false});
  load_checkpoint(folder, parameters);
  const StageMath math(config, parameters.weights(), std::ssize(ids), {});
  const auto connectivity = Connectivity::from_config(config.raw, config.num_layers());
  const StageGraph graph = build_graph(config, connectivity, {Phase::train, {}, 1, Scope::forward});
  at::Tensor logits;
  run_ranks(1, [&](World& world) {
    const Communicators communicators = Communicators::make(world, {});
    ExecutorOptions options;
    options.observe = [&](const Value& value, const at::Tensor& tensor) {
      if (value.name == "mb0.logits") logits = tensor[0].clone();
    };
    Executor executor(graph, reference_schedule(graph), math, communicators, options);
    const at::Tensor input = at::tensor(std::vector<int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0);
    executor.run({{input, at::full_like(input, nn::ignored_target), 1}});
  });
  return logits;
}

}  // namespace farskip::testing
