#pragma once
// Many requests at once over one model on one or several ranks: continuous batching over a paged cache. Rank 0 takes
// requests, plans steps and tells what came of them; the other ranks follow its plans.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "infer/sampling_options.h"
#include "infer/step_form.h"

namespace farskip {

/// One sequence to be continued.
struct GenerationRequest {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 16;  ///< fewer where max_positions() are reached; 0: the prompt is read and nothing drawn
  SamplingOptions sampling;
  uint64_t stream = 0;               ///< of the seed: sequence i of n with one prompt draws from stream i
  std::vector<int32_t> stop_tokens;  ///< one of them ends the sequence and is not part of it
  int64_t num_logprobs = -1;         ///< so many likeliest tokens beside the chosen one's; -1: no logprobs
  bool prompt_logprobs = false;      ///< of the prompt's tokens (all but the first), with as many likeliest ones
};

struct TokenLogprobs {
  int32_t token = -1;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  ///< likeliest first
};

/// What came of a step for one sequence: there is an event for each token, and one for an end without a token.
struct GenerationEvent {
  std::vector<int32_t> tokens;           ///< new ones
  std::vector<TokenLogprobs> logprobs;   ///< one each, where asked for
  std::vector<TokenLogprobs> of_prompt;  ///< once, with the first event, where asked for
  /// Of the stop token that ended it and is not part of it, where logprobs were asked for.
  std::optional<TokenLogprobs> of_stop_token = {};
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

/// Names are vLLM's where it has them.
struct EngineOptions {
  int64_t max_model_len = 0;              ///< positions of a sequence; 0: what the model was made for
  int64_t cache_positions = 0;            ///< of all sequences; 0: max_model_len, and at least 16384
  int64_t max_num_seqs = 64;              ///< sequences in a step
  int64_t max_num_batched_tokens = 2048;  ///< tokens in a step: longer prompts are read in parts
  int64_t max_num_waiting = 256;  ///< submit() throws Overloaded where max_num_seqs and so many more have not ended
  bool enable_prefix_caching = true;
  /// A step is planned while the one before runs; a sequence that ends by a stop token then computes a position in
  /// vain. Absent: where there are several ranks.
  std::optional<bool> async_scheduling = {};
  ChooseForm form = {};      ///< microbatches and schedule of steps; absent: one, and the reference
  double heartbeat_s = 0.5;  ///< how often idle ranks hear of each other; below the transport's timeout
};

class InferenceModel;
class World;

class Engine final : public GenerationService {
 public:
  /// Made by all ranks of the model's layout with the same options. `model` and `world` must outlive it. Throws Error
  /// for options that contradict each other. With expert parallelism each rank holds sequences of its own, and the
  /// figures of EngineOptions are of each rank.
  Engine(const InferenceModel& model, World& world, const EngineOptions& options = {});
  /// Requests that have not ended end with "abort".
  ~Engine() override;

  /// Serves until stop(), on one thread of each rank. Throws Error where a step or a rank fails, after all requests
  /// have ended with "error"; then and after a stop, submit() throws Error.
  void run();
  /// Of rank 0, from any thread: run() returns on all ranks soon, and what has not ended ends with "abort".
  void stop();

  /// Of rank 0.
  uint64_t submit(GenerationRequest request, OnEvent on_event) override;
  void cancel(uint64_t id) override;
  EngineStats stats() const override;
  int64_t max_positions() const override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace farskip
