#pragma once
// Many requests at once over one model on one or several ranks: continuous batching over a paged cache. Rank 0 takes
// requests, plans steps and tells what came of them; the other ranks follow its plans.

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "infer/sampling_options.h"

namespace farskip {

/// One sequence to be continued.
struct GenerationRequest {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 16;
  SamplingOptions sampling;
  uint64_t stream = 0;               ///< of the seed: sequence i of n with one prompt draws from stream i
  std::vector<int32_t> stop_tokens;  ///< one of them ends the sequence and is not part of it
  int64_t num_logprobs = -1;         ///< so many likeliest tokens beside the chosen one's; -1: no logprobs
  bool prompt_logprobs = false;      ///< of the prompt's tokens as well (all but the first)
};

struct TokenLogprobs {
  int32_t token = -1;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  ///< likeliest first
};

/// What came of a step for one sequence.
struct GenerationEvent {
  std::vector<int32_t> tokens;           ///< new ones
  std::vector<TokenLogprobs> logprobs;   ///< one each, where asked for
  std::vector<TokenLogprobs> of_prompt;  ///< once, with the first event, where asked for
  /// "stop", "length", "abort" (cancelled) or "error"; empty: it goes on. Nothing follows an event that has one.
  std::string finish_reason;
  std::string error;  ///< with "error"
};

/// Thrown by submit() where no more requests are taken now: a client may try again later.
class Overloaded : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct EngineStats {
  int64_t num_running = 0, num_waiting = 0;
  int64_t cache_positions = 0, cache_positions_used = 0;
  int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;  ///< since the start
  int64_t num_preemptions = 0, num_steps = 0;
};

/// What a server needs of an engine; safe to call from any thread.
class GenerationService {
 public:
  virtual ~GenerationService() = default;
  /// Called on the engine's thread, in order; must return at once.
  using OnEvent = std::function<void(const GenerationEvent&)>;
  /// Throws Error for what can never run (an empty prompt, ids outside the vocabulary, more positions than the model or
  /// the cache has) and Overloaded where too many wait.
  virtual uint64_t submit(GenerationRequest request, OnEvent on_event) = 0;
  /// The sequence ends with "abort"; nothing happens where it has ended before.
  virtual void cancel(uint64_t id) = 0;
  virtual EngineStats stats() const = 0;
  /// Positions a sequence may have, prompt included.
  virtual int64_t max_positions() const = 0;
};

}  // namespace farskip
