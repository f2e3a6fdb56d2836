#include "infer/text_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "infer/sequence_logits.h"
#include "model/checkpoint.h"

namespace farskip {
namespace {

at::ScalarType compute_dtype(const nlohmann::json& config) {
  const std::string dtype = config.value("torch_dtype", config.value("dtype", ""));
  return dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

/// One connectivity over all windows of the text.
std::vector<double> losses_of(const StageGraph& graph, const StageMath& math, ParameterSet& parameters,
                              const at::Tensor& tokens, int64_t window) {
  std::vector<double> losses;
  with_sequence_logits(graph, math, parameters, [&](const SequenceLogits& logits) {
    for (int64_t begin = 0; begin + 1 < tokens.size(0); begin += window) {
      const int64_t length = std::min(window, tokens.size(0) - begin);
      const at::Tensor found = logits(tokens.narrow(0, begin, length));
      const at::Tensor log_p = at::log_softmax(found.narrow(0, 0, length - 1), 1, at::kFloat);
      const at::Tensor next = tokens.narrow(0, begin + 1, length - 1).unsqueeze(1);
      const at::Tensor loss = log_p.gather(1, next).squeeze(1).neg().to(at::kDouble).contiguous();
      losses.insert(losses.end(), loss.data_ptr<double>(), loss.data_ptr<double>() + loss.numel());
    }
  });
  return losses;
}

}  // namespace

std::vector<std::vector<double>> text_losses(const std::string& model, const std::vector<Connectivity>& connectivities,
                                             const std::vector<int32_t>& tokens, const TextLossOptions& options) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = load_model_config(model);
  const auto length = std::min<int64_t>(static_cast<int64_t>(tokens.size()), options.max_tokens);
  if (length < 2) fail("the text has {} tokens; a loss needs at least 2, a verdict some hundreds", length);
  for (int64_t i = 0; i < length; ++i) {
    if (tokens[i] < 0 || tokens[i] >= config.vocab_size) {
      fail("token {} of the text is {}, outside the model's vocabulary of {}", i, tokens[i], config.vocab_size);
    }
  }
  ParameterSet parameters(std::make_shared<const ParameterTable>(config),
                          {.dtype = compute_dtype(config.raw), .keep_main = false});
  load_checkpoint(model, parameters);
  const int64_t longest = config.max_position_embeddings > 0 ? config.max_position_embeddings : options.window;
  const int64_t window = std::min(options.window, longest);
  const StageMath math(config, parameters.weights(), window, {});
  const at::Tensor ids = at::tensor(std::vector<int64_t>(tokens.begin(), tokens.begin() + length), at::kLong);
  std::vector<std::vector<double>> losses;
  for (const auto& connectivity : connectivities) {
    const StageGraph graph = build_graph(config, connectivity, {Phase::train, {}, 1, Scope::forward});
    losses.push_back(losses_of(graph, math, parameters, ids, window));
  }
  return losses;
}

bool LossComparison::clear() const {
  const double difference = std::abs(first - second);
  return difference > 0.01 && difference > 5 * error;
}

LossComparison compare_losses(const std::vector<double>& first, const std::vector<double>& second) {
  FARSKIP_CHECK(!first.empty() && first.size() == second.size());
  LossComparison result;
  result.num_tokens = static_cast<int64_t>(first.size());
  const auto n = static_cast<double>(first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    result.first += first[i] / n;
    result.second += second[i] / n;
  }
  const double mean = result.first - result.second;
  double squares = 0;
  for (size_t i = 0; i < first.size(); ++i) squares += std::pow(first[i] - second[i] - mean, 2);
  // One token alone says nothing about chance.
  result.error = n > 1 ? std::sqrt(squares / (n - 1) / n) : std::abs(mean);
  return result;
}

Connectivity opposite(const Connectivity& connectivity) {
  const int64_t layers = connectivity.num_layers();
  return connectivity.is_standard() ? Connectivity::farskip(layers) : Connectivity::standard(layers);
}

}  // namespace farskip
