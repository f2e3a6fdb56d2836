#include "serve/answer_json.h"

#include <fmt/format.h>

#include <chrono>
#include <random>

#include "tokenizer/utf8.h"

namespace farskip::serve {
namespace {

using nlohmann::json;

/// JSON has no infinities; this is the value that others write.
double finite(float logprob) { return logprob > -9999.0f ? logprob : -9999.0; }

/// A token's text; a part of a character as OpenAI writes it, so that different tokens have different names.
std::string token_name(const std::string& bytes) {
  if (is_utf8(bytes)) return bytes;
  std::string name = "bytes:";
  for (const char byte : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return name;
}

json reason_or_null(const std::string& reason) { return reason.empty() ? json() : json(reason); }

}  // namespace

json Usage::json() const {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens}};
}

AnswerJson::AnswerJson(const CompletionRequest& request, const ServedModel& model) : request_(request), model_(model) {
  std::random_device random;
  id_ = fmt::format("{}-{:08x}{:08x}{:08x}", request.chat ? "chatcmpl" : "cmpl", random(), random(), random());
  created_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

json AnswerJson::frame(const char* object, json choices) const {
  return {{"id", id_},
          {"object", object},
          {"created", created_},
          {"model", model_.names.front()},
          {"choices", std::move(choices)}};
}

json AnswerJson::completion_logprobs(const std::vector<ShownToken>& tokens) const {
  json result = {{"tokens", json::array()},
                 {"token_logprobs", json::array()},
                 {"top_logprobs", json::array()},
                 {"text_offset", json::array()}};
  for (const ShownToken& shown : tokens) {
    const TokenLogprobs& token = shown.logprobs;
    const std::string name = token_name(model_.token_bytes(token.token));
    result["tokens"].push_back(name);
    result["text_offset"].push_back(shown.offset);
    if (!shown.has_logprob) {
      result["token_logprobs"].push_back(nullptr);
      result["top_logprobs"].push_back(nullptr);
      continue;
    }
    json top = json::object();
    for (const auto& [id, logprob] : token.top) {
      top.emplace(token_name(model_.token_bytes(id)), finite(logprob));  // the likelier of equal names stays
    }
    top.emplace(name, finite(token.logprob));
    result["token_logprobs"].push_back(finite(token.logprob));
    result["top_logprobs"].push_back(std::move(top));
  }
  return result;
}

json AnswerJson::chat_logprob(int32_t token, float logprob) const {
  const std::string bytes = model_.token_bytes(token);
  json list = json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return {{"token", token_name(bytes)}, {"logprob", finite(logprob)}, {"bytes", std::move(list)}};
}

json AnswerJson::logprobs(const std::vector<ShownToken>& tokens) const {
  if (request_.num_logprobs < 0) return nullptr;
  if (!request_.chat) return completion_logprobs(tokens);
  json content = json::array();
  for (const ShownToken& shown : tokens) {
    json token = chat_logprob(shown.logprobs.token, shown.logprobs.logprob);
    token["top_logprobs"] = json::array();
    for (const auto& [id, logprob] : shown.logprobs.top) token["top_logprobs"].push_back(chat_logprob(id, logprob));
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

json AnswerJson::choice(size_t index, const TextDelta& all, const std::string& finish_reason) const {
  json result = {
      {"index", index}, {"logprobs", logprobs(all.tokens)}, {"finish_reason", reason_or_null(finish_reason)}};
  if (request_.chat) {
    result["message"] = {{"role", "assistant"}, {"content", all.text}, {"refusal", nullptr}};
  } else {
    result["text"] = all.text;
  }
  return result;
}

json AnswerJson::whole(json choices, const Usage& usage) const {
  json result = frame(request_.chat ? "chat.completion" : "text_completion", std::move(choices));
  result["usage"] = usage.json();
  return result;
}

json AnswerJson::begin_chunk(size_t index) const {
  json choice = {{"index", index},
                 {"delta", {{"role", "assistant"}, {"content", ""}}},
                 {"logprobs", nullptr},
                 {"finish_reason", nullptr}};
  json result = frame("chat.completion.chunk", json::array({std::move(choice)}));
  if (request_.include_usage) result["usage"] = nullptr;
  return result;
}

json AnswerJson::chunk(size_t index, const TextDelta& delta, const std::string& finish_reason) const {
  json choice = {{"index", index}, {"finish_reason", reason_or_null(finish_reason)}};
  choice["logprobs"] = delta.tokens.empty() ? json() : logprobs(delta.tokens);
  if (request_.chat) {
    choice["delta"] = delta.text.empty() ? json::object() : json{{"content", delta.text}};
  } else {
    choice["text"] = delta.text;
  }
  json result = frame(request_.chat ? "chat.completion.chunk" : "text_completion", json::array({std::move(choice)}));
  if (request_.include_usage) result["usage"] = nullptr;
  return result;
}

json AnswerJson::usage_chunk(const Usage& usage) const {
  json result = frame(request_.chat ? "chat.completion.chunk" : "text_completion", json::array());
  result["usage"] = usage.json();
  return result;
}

}  // namespace farskip::serve
