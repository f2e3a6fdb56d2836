#include "infer/text_loss.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "infer/decoder.h"

namespace farskip {
namespace {

/// Of all windows of the text.
std::vector<double> losses_of(const InferenceModel& model, const std::vector<int32_t>& tokens, int64_t window) {
  std::vector<double> losses;
  const auto num = static_cast<int64_t>(tokens.size());
  with_decoder(model, {.max_positions = window}, [&](Decoder& decoder) {
    for (int64_t begin = 0; begin + 1 < num; begin += window) {
      const int64_t length = std::min(window, num - begin);
      const std::vector<int32_t> part(tokens.begin() + begin, tokens.begin() + begin + length);
      const int64_t sequence = decoder.add();
      const at::Tensor logits = decoder.step({{sequence, part}}, {.every_token = true});
      decoder.remove(sequence);
      const at::Tensor next = at::tensor(std::vector<int64_t>(part.begin() + 1, part.end()), at::kLong).unsqueeze(1);
      const at::Tensor log_p = at::log_softmax(logits.narrow(0, 0, length - 1), 1);
      const at::Tensor loss = log_p.gather(1, next).squeeze(1).neg().to(at::kDouble).contiguous();
      losses.insert(losses.end(), loss.data_ptr<double>(), loss.data_ptr<double>() + loss.numel());
    }
  });
  return losses;
}

}  // namespace

std::vector<std::vector<double>> text_losses(const std::string& folder, const std::vector<Connectivity>& connectivities,
                                             const std::vector<int32_t>& text, const TextLossOptions& options) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = load_model_config(folder);
  const auto length = std::min<int64_t>(static_cast<int64_t>(text.size()), options.max_tokens);
  if (length < 2) fail("the text has {} tokens; a loss needs at least 2, a verdict some hundreds", length);
  const std::vector<int32_t> tokens(text.begin(), text.begin() + length);
  for (int64_t i = 0; i < length; ++i) {
    if (tokens[i] < 0 || tokens[i] >= config.vocab_size) {
      fail("token {} of the text is {}, outside the model's vocabulary of {}", i, tokens[i], config.vocab_size);
    }
  }
  InferenceModelOptions model_options;
  model_options.quantization = options.quantization;
  const InferenceModel model(folder, model_options);
  const int64_t longest = config.max_position_embeddings > 0 ? config.max_position_embeddings : options.window;
  std::vector<std::vector<double>> losses;
  for (const auto& connectivity : connectivities) {
    losses.push_back(losses_of(model.with(connectivity), tokens, std::min(options.window, longest)));
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
