#pragma once
// What the tests of the engine share: an engine that serves on a thread, and callers that remember what they are told.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "infer/engine.h"
#include "infer/generate.h"
#include "model/safetensors.h"
#include "tests/infer/golden_models.h"
#include "transport/loopback.h"

namespace farskip::testing {

inline std::vector<int32_t> golden_text(const std::string& name) {
  const at::Tensor ids =
      SafetensorsReader(golden(name) + "/golden.safetensors").tensor("input_ids.b").flatten().to(at::kInt).contiguous();
  return {ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel()};
}

/// Remembers a request's events.
class Caller {
 public:
  GenerationService::OnEvent on_event() {
    return [this](const GenerationEvent& event) {
      const std::lock_guard lock(mutex_);
      if (!finish_reason.empty()) ++num_after_end;
      ++num_events;
      tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
      logprobs.insert(logprobs.end(), event.logprobs.begin(), event.logprobs.end());
      of_prompt.insert(of_prompt.end(), event.of_prompt.begin(), event.of_prompt.end());
      if (event.of_stop_token) of_stop_token = event.of_stop_token;
      finish_reason = event.finish_reason;
      error = event.error;
      changed_.notify_all();
      if (then) then(*this);
    };
  }
  /// False: it hangs.
  bool wait_for_end() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::minutes(10), [&] { return !finish_reason.empty(); });
  }

  std::vector<int32_t> tokens;
  std::vector<TokenLogprobs> logprobs, of_prompt;
  std::optional<TokenLogprobs> of_stop_token;
  std::string finish_reason, error;
  int num_events = 0, num_after_end = 0;
  std::function<void(Caller&)> then;  ///< called with each event

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

/// Calls `body` with rank 0's engine while all serve.
inline void with_engine(const InferenceModel& model, const EngineOptions& options,
                        const std::function<void(Engine&)>& body) {
  run_ranks(1, [&](World& world) {
    Engine engine(model, world, options);
    std::thread thread([&] { engine.run(); });
    try {
      body(engine);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    engine.stop();
    thread.join();
    EXPECT_EQ(engine.stats().cache_positions_used, 0);
  });
}

/// What `generate` gives for the request alone.
inline GeneratedSequence alone(const InferenceModel& model, const GenerationRequest& request) {
  GenerateOptions options;
  options.max_tokens = request.max_tokens;
  options.max_positions = 2500;
  options.stop_tokens = request.stop_tokens;
  options.sampling = request.sampling;
  return generate(model, {request.prompt}, options).sequences[0];
}

inline GenerationRequest request_for(std::vector<int32_t> prompt, int64_t max_tokens) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  return request;
}

}  // namespace farskip::testing
