#pragma once
// Prompts continued by their likeliest tokens, together.

#include <functional>
#include <string>
#include <vector>

#include "infer/decoder.h"

namespace farskip {

struct GreedyOptions {
  int64_t max_new_tokens = 256;
  std::vector<int32_t> stop_tokens = {};  ///< one of them ends a sequence and is not part of it
  /// True where the tokens so far end sequence `index`.
  std::function<bool(size_t index, const std::vector<int32_t>& tokens)> stops = {};
};

/// New tokens of each prompt. Called by all ranks of an expert communicator: with the same prompts where all have all
/// sequences, else with their own, which may be none. Prompts are read whole, in parts of Decoder::prompt_chunk. Throws
/// Error for logits that are not finite, and as Decoder::step does. REQUIRES: prompts that are not empty.
std::vector<std::vector<int32_t>> continue_greedily(Decoder& decoder, const InferenceModel& model,
                                                    const Communicators& communicators,
                                                    const std::vector<std::vector<int32_t>>& prompts,
                                                    const GreedyOptions& options);

}  // namespace farskip
