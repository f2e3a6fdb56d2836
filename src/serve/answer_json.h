#pragma once
// Answers of both APIs as JSON, whole and in chunks.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "serve/choice_text.h"

namespace farskip::serve {

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0;
  nlohmann::json json() const;
};

class AnswerJson {
 public:
  /// A new id for the answer. `request` and `model` must outlive it.
  AnswerJson(const CompletionRequest& request, const ServedModel& model);

  /// A choice of a whole answer: all that came.
  nlohmann::json choice(size_t index, const TextDelta& all, const std::string& finish_reason) const;
  nlohmann::json whole(nlohmann::json choices, const Usage& usage) const;

  /// The first chunk of a chat's choice.
  nlohmann::json begin_chunk(size_t index) const;
  /// `finish_reason` is empty but in a choice's last chunk.
  nlohmann::json chunk(size_t index, const TextDelta& delta, const std::string& finish_reason) const;
  nlohmann::json usage_chunk(const Usage& usage) const;

  const std::string& id() const { return id_; }

 private:
  nlohmann::json frame(const char* object, nlohmann::json choices) const;
  nlohmann::json logprobs(const std::vector<ShownToken>& tokens) const;
  nlohmann::json completion_logprobs(const std::vector<ShownToken>& tokens) const;
  nlohmann::json chat_logprob(int32_t token, float logprob) const;

  const CompletionRequest& request_;
  const ServedModel& model_;
  std::string id_;
  int64_t created_ = 0;  ///< Unix time
};

}  // namespace farskip::serve
