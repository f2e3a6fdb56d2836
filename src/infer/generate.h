#pragma once
// Continuing prompts with a model, one rank: all prompts together, each new token over the cache.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "infer/inference_model.h"
#include "infer/sampler.h"

namespace farskip {

struct GenerateOptions {
  int64_t max_tokens = 200;          ///< of each sequence
  int64_t max_positions = 0;         ///< of a sequence, prompt included; 0: what the model was made for
  std::vector<int32_t> stop_tokens;  ///< one of them ends a sequence and is not part of it
  SamplingOptions sampling;          ///< prompt i draws from stream i of the seed
  bool use_cache = true;             ///< false: every token anew from all before it (for checks)
};

struct GeneratedSequence {
  std::vector<int32_t> tokens;  ///< without the prompt
  /// "stop": a stop token, or the caller's wish; "length": max_tokens, or no position left.
  std::string finish_reason;
};

struct GenerateReport {
  std::vector<GeneratedSequence> sequences;      ///< one per prompt
  int64_t prompt_tokens = 0, decode_tokens = 0;  ///< decode: all but the first of each sequence
  double prefill_s = 0, decode_s = 0;
};

/// Called with each new token of prompt `index`; false ends that sequence (the token stays in it).
using OnToken = std::function<bool(size_t index, int32_t token)>;

/// Throws Error for an empty prompt, ids outside the vocabulary and a prompt without room behind it.
GenerateReport generate(const InferenceModel& model, const std::vector<std::vector<int32_t>>& prompts,
                        const GenerateOptions& options, const OnToken& on_token = {});

/// Token ids that end a text by the folder's generation_config.json and config.json (eos_token_id).
std::vector<int32_t> end_tokens(const InferenceModel& model);

}  // namespace farskip
