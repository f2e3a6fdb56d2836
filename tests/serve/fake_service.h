#pragma once
// An engine of the tests: it says what a script tells it, byte by byte, when it may. Its model's tokens are bytes.

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "infer/engine.h"
#include "serve/served_model.h"

namespace farskip::testing {

/// Bytes as tokens (256 ends a text); a conversation is "ROLE: CONTENT\n" for each message, and "assistant: ".
serve::ServedModel byte_model();
std::vector<int32_t> byte_tokens(const std::string& text);

class FakeService final : public GenerationService {
 public:
  explicit FakeService(int64_t max_positions = 1000);
  ~FakeService() override;

  /// What follows each prompt, until max_tokens; then "length", or at the text's end "stop".
  void say(const std::string& text);
  /// From now on so many tokens may come (of all sequences together) until more are allowed.
  void allow(int64_t num_tokens);
  void allow_all() { allow(int64_t{1} << 40); }
  /// Each sequence ends so after so many tokens.
  void fail_after(int64_t num_tokens, const std::string& error);
  /// submit() throws Overloaded where so many have not ended.
  void accept_at_most(size_t num_sequences);

  std::vector<GenerationRequest> requests() const;  ///< all that came
  size_t num_open() const;                          ///< that have not ended
  size_t num_cancelled() const;

  uint64_t submit(GenerationRequest request, OnEvent on_event) override;
  void cancel(uint64_t id) override;
  EngineStats stats() const override;
  int64_t max_positions() const override { return max_positions_; }

 private:
  struct Sequence {
    GenerationRequest request;
    OnEvent on_event;
    std::string text;
    size_t told = 0;
    bool cancelled = false;
  };
  /// What the next step tells a sequence.
  GenerationEvent step(Sequence& sequence);
  void run();

  const int64_t max_positions_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_ = "Hello, world.";
  std::string error_;
  int64_t fail_after_ = -1;
  int64_t allowed_ = int64_t{1} << 40;
  size_t most_ = 1000;
  std::map<uint64_t, Sequence> open_;
  std::vector<GenerationRequest> requests_;
  EngineStats stats_;
  size_t num_cancelled_ = 0;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace farskip::testing
