#pragma once
// One request to /v1/completions or /v1/chat/completions, from its submission to its last word.

#include <functional>
#include <string>
#include <vector>

#include "serve/answer_json.h"
#include "serve/metrics.h"
#include "serve/sequences.h"

namespace farskip::serve {

class Completion {
 public:
  /// Submits its sequences. Throws ApiError: 400 for what the engine refuses, 503 where it has too much to do. All but
  /// `request` must outlive it.
  Completion(CompletionRequest request, const ServedModel& model, GenerationService& service, Metrics& metrics);
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;

  /// Asked now and then while nothing happens; true ends the request.
  using IsGone = std::function<bool()>;
  /// The whole answer, or nothing where the client is gone. Throws ApiError 500 where the engine fails, 503 where it
  /// ends the request.
  nlohmann::json answer(const IsGone& is_gone);

  /// Sends a part of the answer; false: the client is gone.
  using Write = std::function<bool(const std::string&)>;
  /// The answer as server-sent events, as it comes; errors are events, too.
  void stream(const Write& write, const IsGone& is_gone);

  const CompletionRequest& request() const { return request_; }

 private:
  /// A sequence, timed.
  struct Progress {
    double first_s = 0, last_s = 0;
    int64_t num_told = 0;  ///< tokens
    bool ended = false;
  };
  /// `on_delta` gets what each event brings to a choice, and its finish reason; false ends the request, as is_gone
  /// does.
  using OnDelta = std::function<bool(size_t index, TextDelta delta, const std::string& finish_reason)>;
  /// False where the client is gone.
  bool run(const IsGone& is_gone, const OnDelta& on_delta);
  bool take(const Sequences::Event& event, const OnDelta& on_delta);
  void time(const Sequences::Event& event);
  void ended(size_t index, const std::string& reason);
  const Prompt& prompt_of(size_t index) const;
  Usage usage() const;

  CompletionRequest request_;
  const ServedModel& model_;
  GenerationService& service_;
  Metrics& metrics_;
  AnswerJson form_;
  double begin_s_;
  std::vector<ChoiceText> choices_;
  std::vector<bool> begun_;
  std::vector<Progress> progress_;
  size_t num_open_ = 0;
  std::unique_ptr<Sequences> sequences_;
};

}  // namespace farskip::serve
