#include "infer/generate.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"
#include "infer/sequence_logits.h"
#include "model/checkpoint.h"

namespace farskip {
namespace {

/// Draws from softmax(logits / temperature); the largest for temperature 0 (the smaller id among equals).
int32_t sample(const at::Tensor& logits_V, double temperature, Philox& random) {
  if (temperature == 0) return static_cast<int32_t>(logits_V.argmax().item<int64_t>());
  const at::Tensor cumulated = at::cumsum(at::softmax(logits_V.to(at::kDouble) / temperature, 0), 0).contiguous();
  const double point = static_cast<double>(random.next() >> 11) * 0x1p-53 * cumulated[-1].item<double>();
  const double* begin = cumulated.data_ptr<double>();
  return static_cast<int32_t>(std::upper_bound(begin, begin + cumulated.numel() - 1, point) - begin);
}

}  // namespace

std::vector<int32_t> generate(const std::string& model, const std::vector<int32_t>& prompt, int32_t end_of_document,
                              const GenerateOptions& options, const std::function<void(int32_t)>& on_token) {
  const ModelConfig config = load_model_config(model);
  if (prompt.empty()) fail("the prompt is empty; give at least one token to continue");
  for (int32_t id : prompt) {
    if (id < 0 || id >= config.vocab_size)
      fail("prompt token {} is outside the model's vocabulary of {}", id, config.vocab_size);
  }
  const auto connectivity = Connectivity::from_config(config.raw, config.num_layers());
  ParameterSet parameters(std::make_shared<const ParameterTable>(config), {.keep_main = false});
  load_checkpoint(model, parameters);
  const StageMath math(config, parameters.weights(), options.context, {});
  const StageGraph graph = build_graph(config, connectivity, {Phase::train, {}, 1, Scope::forward});
  std::vector<int32_t> tokens = prompt, made;
  Philox random(options.seed, 0);
  with_sequence_logits(graph, math, parameters, [&](const SequenceLogits& logits) {
    while (static_cast<int64_t>(made.size()) < options.max_tokens) {
      const auto length = std::min<int64_t>(static_cast<int64_t>(tokens.size()), options.context);
      const at::Tensor window = at::tensor(std::vector<int64_t>(tokens.end() - length, tokens.end()), at::kLong);
      const int32_t next = sample(logits(window)[length - 1].to(at::kFloat), options.temperature, random);
      if (next == end_of_document) break;
      tokens.push_back(next);
      made.push_back(next);
      on_token(next);
    }
  });
  return made;
}

}  // namespace farskip
