#pragma once
// One choice of an answer: tokens as they come, turned into text that can be shown, with their logprobs.

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "infer/engine.h"
#include "infer/stop_text.h"
#include "serve/completion_request.h"

namespace farskip::serve {

/// A token whose text has been shown.
struct ShownToken {
  TokenLogprobs logprobs;
  bool has_logprob = true;  ///< false for the first of a prompt
  int64_t offset = 0;       ///< of its first character in the choice's text, in characters (Unicode code points)
};

/// What a choice grows by.
struct TextDelta {
  std::string text;                ///< UTF-8, never a part of a character or of a stop string
  std::vector<ShownToken> tokens;  ///< where logprobs were asked for
};

class ChoiceText {
 public:
  /// `request` and `model` must outlive it.
  ChoiceText(const CompletionRequest& request, const Prompt& prompt, const ServedModel& model);

  /// What the prompt contributes; for echo. `of_prompt`: all but the first token's, or empty.
  TextDelta echo(const std::vector<TokenLogprobs>& of_prompt);
  /// What an event adds. After a stop string nothing is added, and finish_reason() is "stop".
  TextDelta push(const GenerationEvent& event);

  /// Empty while it goes on; "stop", "length", "abort" or "error".
  const std::string& finish_reason() const { return finish_reason_; }
  int64_t num_tokens() const { return num_tokens_; }  ///< generated, up to the one that ended a stop string

 private:
  /// A token whose text is not shown yet.
  struct Held {
    TokenLogprobs logprobs;
    size_t begin = 0, end = 0;  ///< in the bytes of decoded text
    int64_t offset = 0;
  };

  std::string decode(int32_t token);
  void show(const std::string& text, TextDelta& delta);
  /// The token that ended a completion is one of its tokens (of clients that expect logprobs of max_tokens tokens,
  /// lm-evaluation-harness among them), without text.
  void finish(const std::string& reason, const std::optional<TokenLogprobs>& of_stop_token, TextDelta& delta);

  const CompletionRequest& request_;
  const Prompt& prompt_;
  std::function<std::string(int32_t)> decoder_;
  std::string cut_;  ///< of decoded bytes: the beginning of a character
  StopText stop_;
  std::deque<Held> held_;
  size_t decoded_ = 0, shown_ = 0;  ///< bytes
  int64_t offset_ = 0;              ///< characters of text so far, with the echoed prompt
  int64_t num_tokens_ = 0;
  std::string finish_reason_;
};

/// Unicode code points of UTF-8.
int64_t num_characters(const std::string& text);

}  // namespace farskip::serve
