#pragma once
// What a request to /v1/completions or /v1/chat/completions asks for, of either API in one form.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "infer/sampling_options.h"
#include "serve/served_model.h"

namespace farskip::serve {

struct Prompt {
  std::vector<int32_t> tokens;
  std::optional<std::string> text;  ///< as it was sent; absent: it was sent as tokens
};

struct CompletionRequest {
  bool chat = false;
  std::vector<Prompt> prompts;  ///< at least one; one of a chat
  int64_t n = 1;                ///< sequences of each prompt
  int64_t max_tokens = 0;       ///< of each sequence
  SamplingOptions sampling;
  std::vector<std::string> stops;
  std::vector<int32_t> stop_tokens;
  int64_t num_logprobs = -1;  ///< see GenerationRequest
  bool echo = false;          ///< prompts stand before what is generated
  bool stream = false;
  bool include_usage = false;  ///< a last chunk with the usage

  int64_t num_sequences() const { return n * static_cast<int64_t>(prompts.size()); }
};

struct RequestLimits {
  int64_t max_positions = 0;     ///< of a sequence, prompt included
  int64_t max_sequences = 1024;  ///< of a request
};

/// Reads the JSON of either API. Throws ApiError: 404 for another model's name, 400 for everything else.
CompletionRequest parse_completion(const nlohmann::json& body, const ServedModel& model, const RequestLimits& limits);
CompletionRequest parse_chat(const nlohmann::json& body, const ServedModel& model, const RequestLimits& limits);

/// Throws ApiError 404 unless it is one of the model's names.
void check_model_name(const std::string& name, const ServedModel& model);

}  // namespace farskip::serve
