#pragma once
// How well a checkpoint predicts a text under a connectivity: the way to tell under which one it was trained, because a
// checkpoint fits its own and is fluent but wrong under any other.

#include <cstdint>
#include <string>
#include <vector>

#include "layer/connectivity.h"
#include "nn/inference_weight.h"

namespace farskip {

struct TextLossOptions {
  int64_t window = 256;         ///< tokens of a sequence; the text is cut into such
  int64_t max_tokens = 16'384;  ///< of the text, from its beginning
  nn::Quantization quantization = nn::Quantization::none;
};

/// Next-token cross-entropy of each predicted token, in nats, one list for each connectivity, in the order of the text.
/// The weights are read once, as InferenceModel reads them. Throws Error for a
/// text of fewer than two tokens and for ids outside the vocabulary.
std::vector<std::vector<double>> text_losses(const std::string& model, const std::vector<Connectivity>& connectivities,
                                             const std::vector<int32_t>& tokens, const TextLossOptions& options = {});

/// Two lists of losses of the same tokens.
struct LossComparison {
  double first = 0, second = 0;  ///< means
  double error = 0;              ///< standard error of the mean of the differences, token by token
  int64_t num_tokens = 0;

  /// True where the difference is no chance (5 standard errors) and worth speaking of (0.01 nats).
  bool clear() const;
  bool first_is_better() const { return first < second; }
};

/// REQUIRES: lists of one length, not empty.
LossComparison compare_losses(const std::vector<double>& first, const std::vector<double>& second);

/// What a connectivity is compared with: standard, or FarSkip on every layer for a standard model.
Connectivity opposite(const Connectivity& connectivity);

}  // namespace farskip
