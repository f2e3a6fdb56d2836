#include "serve/completion_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <random>

#include "base/error.h"
#include "serve/api_error.h"
#include "serve/request_fields.h"

namespace farskip::serve {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxN = 128, kMaxStops = 4, kMaxLogprobs = 20;

uint64_t random_seed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

void read_sampling(RequestFields& fields, SamplingOptions& sampling) {
  sampling.temperature = fields.number("temperature", 0, 2).value_or(1);
  sampling.top_p = fields.number("top_p", 0, 1).value_or(1);
  sampling.min_p = fields.number("min_p", 0, 1).value_or(0);
  sampling.top_k = std::max<int64_t>(0, fields.integer("top_k", -1, kLargest).value_or(0));
  sampling.repetition_penalty = fields.number("repetition_penalty", 0, 1e6).value_or(1);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  const auto seed = fields.integer("seed", std::numeric_limits<int64_t>::min(), kLargest);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : random_seed();
  try {
    sampling.check();
  } catch (const Error& error) {
    const std::string text = error.what();
    refuse(text.substr(0, text.find(' ')), text);
  }
}

std::vector<std::string> read_stops(RequestFields& fields) {
  const nlohmann::json* value = fields.find("stop");
  if (value == nullptr) return {};
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  std::vector<std::string> stops;
  for (const auto& stop : list) {
    if (!stop.is_string()) refuse("stop", "stop must be a string or a list of strings");
    if (stop.get_ref<const std::string&>().empty()) refuse("stop", "stop must not be an empty string");
    stops.push_back(stop.get<std::string>());
  }
  if (std::ssize(stops) > kMaxStops) {
    refuse("stop", fmt::format("stop has {} strings; at most {} are allowed", stops.size(), kMaxStops));
  }
  return stops;
}

/// `name` in errors; throws for ids that the model has not.
std::vector<int32_t> read_tokens(const nlohmann::json& list, const std::string& name, const ServedModel& model) {
  std::vector<int32_t> tokens;
  tokens.reserve(list.size());
  for (const auto& id : list) {
    if (!id.is_number_integer()) refuse(name, name + " must be all token ids, or all strings");
    const auto value = id.is_number_unsigned() ? static_cast<int64_t>(std::min<uint64_t>(id.get<uint64_t>(), kLargest))
                                               : id.get<int64_t>();
    if (value < 0 || value >= model.vocab_size) {
      refuse(name, fmt::format("{} has token {}, which is outside the model's vocabulary of {}", name, value,
                               model.vocab_size));
    }
    tokens.push_back(static_cast<int32_t>(value));
  }
  return tokens;
}

void read_stop_tokens(RequestFields& fields, const ServedModel& model, CompletionRequest& request) {
  if (!fields.flag("ignore_eos", false)) request.stop_tokens = model.end_tokens;
  const nlohmann::json* value = fields.find("stop_token_ids");
  if (value == nullptr) return;
  if (!value->is_array()) refuse("stop_token_ids", "stop_token_ids must be a list of token ids");
  for (const int32_t id : read_tokens(*value, "stop_token_ids", model)) request.stop_tokens.push_back(id);
}

void read_stream(RequestFields& fields, CompletionRequest& request) {
  request.stream = fields.flag("stream", false);
  const nlohmann::json* value = fields.find("stream_options");
  if (value == nullptr) return;
  if (!request.stream) refuse("stream_options", "stream_options is only allowed with stream = true");
  RequestFields options(*value, "stream_options.");
  request.include_usage = options.flag("include_usage", false);
  options.unsupported("continuous_usage_stats");
  options.ignore("include_obfuscation");
  options.end();
}

/// What both APIs have alike.
void read_common(RequestFields& fields, const ServedModel& model, CompletionRequest& request) {
  if (const auto name = fields.text("model")) check_model_name(*name, model);
  read_sampling(fields, request.sampling);
  request.n = fields.integer("n", 1, kMaxN).value_or(1);
  request.stops = read_stops(fields);
  read_stop_tokens(fields, model, request);
  read_stream(fields, request);
  fields.unsupported("logit_bias");
  for (const char* name : {"user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"})
    fields.ignore(name);
  fields.unsupported("response_format", {nlohmann::json::object({{"type", "text"}})});
  for (const char* name : {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs",
                           "use_beam_search", "min_tokens", "truncate_prompt_tokens", "prompt_logprobs",
                           "include_stop_str_in_output", "return_tokens_as_token_ids", "bad_words"})
    fields.unsupported(name, {0});
  fields.unsupported("skip_special_tokens", {true});
  fields.unsupported("length_penalty", {1});
}

/// Checks lengths and fills in a limit that was not given. `name`: of the limit's field.
void settle_lengths(CompletionRequest& request, std::optional<int64_t> max_tokens, const std::string& name,
                    int64_t fallback, const RequestLimits& limits) {
  int64_t longest = 0;
  for (const Prompt& prompt : request.prompts) {
    if (prompt.tokens.empty()) refuse(request.chat ? "messages" : "prompt", "the prompt is empty: it has no token");
    longest = std::max(longest, std::ssize(prompt.tokens));
  }
  const std::string limit = fmt::format("the model is run with {} positions", limits.max_positions);
  const int64_t room = limits.max_positions - longest;
  const bool scoring = request.echo && max_tokens == 0;
  if (room < (scoring ? 0 : 1)) {
    throw ApiError(400, fmt::format("{}, and the prompt has {} tokens; shorten it", limit, longest),
                   request.chat ? "messages" : "prompt", "context_length_exceeded");
  }
  if (max_tokens && *max_tokens > room) {
    throw ApiError(
        400,
        fmt::format("{}; {} in the prompt and {} = {} are more; shorten either", limit, longest, name, *max_tokens),
        name, "context_length_exceeded");
  }
  request.max_tokens = max_tokens.value_or(std::min(room, fallback));
  if (request.num_sequences() > limits.max_sequences) {
    refuse("n", fmt::format("{} prompts times n = {} are more than {} sequences; send several requests",
                            request.prompts.size(), request.n, limits.max_sequences));
  }
}

Prompt text_prompt(const std::string& text, bool add_special, const ServedModel& model) {
  return {model.encode(text, add_special), text};
}

std::vector<Prompt> read_prompts(RequestFields& fields, const ServedModel& model, const RequestLimits& limits) {
  const bool add_special = fields.flag("add_special_tokens", true);
  const nlohmann::json* value = fields.find("prompt");
  if (value == nullptr) refuse("prompt", "prompt is missing");
  if (value->is_string()) return {text_prompt(value->get<std::string>(), add_special, model)};
  if (!value->is_array() || value->empty()) {
    refuse("prompt", "prompt must be a string, a list of strings, a list of token ids or a list of such lists");
  }
  if (std::ssize(*value) > limits.max_sequences && !value->front().is_number()) {
    refuse("prompt",
           fmt::format("{} prompts are more than {}; send several requests", value->size(), limits.max_sequences));
  }
  std::vector<Prompt> prompts;
  if (value->front().is_number()) return {Prompt{read_tokens(*value, "prompt", model), std::nullopt}};
  for (const auto& prompt : *value) {
    if (prompt.type() != value->front().type() || !(prompt.is_string() || prompt.is_array())) {
      refuse("prompt", "prompt must be a string, a list of strings, a list of token ids or a list of such lists");
    }
    prompts.push_back(prompt.is_string() ? text_prompt(prompt.get<std::string>(), add_special, model)
                                         : Prompt{read_tokens(prompt, "prompt", model), std::nullopt});
  }
  return prompts;
}

/// A message's content: a string, or parts of type text.
std::string read_content(RequestFields& message) {
  const nlohmann::json* value = message.find("content");
  const std::string name = message.full("content");
  if (value == nullptr) refuse(name, name + " is missing");
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) refuse(name, name + " must be a string or a list of parts");
  std::string text;
  for (size_t i = 0; i < value->size(); ++i) {
    RequestFields part((*value)[i], fmt::format("{}[{}].", name, i));
    const auto type = part.text("type");
    if (type != "text") {
      throw ApiError(400, fmt::format("{} must be \"text\": this server reads text alone", part.full("type")),
                     part.full("type"), "unsupported_parameter");
    }
    const auto own = part.text("text");
    if (!own) refuse(part.full("text"), part.full("text") + " is missing");
    part.end();
    text += *own;
  }
  return text;
}

std::vector<ChatMessage> read_messages(RequestFields& fields) {
  const nlohmann::json* value = fields.find("messages");
  if (value == nullptr || !value->is_array() || value->empty()) {
    refuse("messages", "messages must be a list of at least one {\"role\": ..., \"content\": ...}");
  }
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < value->size(); ++i) {
    RequestFields message((*value)[i], fmt::format("messages[{}].", i));
    std::string role = message.text("role").value_or("");
    if (role == "developer") role = "system";  // OpenAI's newer name
    if (role != "system" && role != "user" && role != "assistant") {
      refuse(message.full("role"),
             message.full("role") + " must be system, developer, user or assistant (tools are not supported)");
    }
    messages.push_back({role, read_content(message)});
    for (const char* name : {"name", "tool_calls", "tool_call_id", "function_call", "audio", "refusal"})
      message.unsupported(name);
    message.ignore("annotations");
    message.end();
  }
  return messages;
}

Prompt chat_prompt(const std::vector<ChatMessage>& messages, const ServedModel& model) {
  if (!model.render_chat) {
    throw ApiError(
        400, "this model has no chat template: use /v1/completions, or start the server with --chat-template FILE",
        "messages", "no_chat_template");
  }
  std::string text;
  try {
    text = model.render_chat(messages);
  } catch (const Error& error) {
    refuse("messages", error.what());
  }
  return {model.encode(text, false), std::nullopt};
}

}  // namespace

void check_model_name(const std::string& name, const ServedModel& model) {
  if (std::find(model.names.begin(), model.names.end(), name) != model.names.end()) return;
  throw ApiError(404,
                 fmt::format("the model `{}` does not exist; this server has {}", name.substr(0, 200), model.names[0]),
                 "model", "model_not_found");
}

CompletionRequest parse_completion(const nlohmann::json& body, const ServedModel& model, const RequestLimits& limits) {
  CompletionRequest request;
  RequestFields fields(body);
  read_common(fields, model, request);
  request.num_logprobs = fields.integer("logprobs", 0, kMaxLogprobs).value_or(-1);
  request.echo = fields.flag("echo", false);
  fields.unsupported("suffix", {""});
  if (const auto best_of = fields.integer("best_of", 1, kMaxN); best_of && *best_of != request.n) {
    throw ApiError(400,
                   fmt::format("best_of = {} differs from n = {}: choosing among more sequences is not supported",
                               *best_of, request.n),
                   "best_of", "unsupported_parameter");
  }
  const auto max_tokens = fields.integer("max_tokens", 0, kLargest);
  request.prompts = read_prompts(fields, model, limits);
  fields.end();
  if (max_tokens == 0 && !request.echo) refuse("max_tokens", "max_tokens is 0; without echo it must be 1 or more");
  settle_lengths(request, max_tokens, "max_tokens", 16, limits);
  return request;
}

CompletionRequest parse_chat(const nlohmann::json& body, const ServedModel& model, const RequestLimits& limits) {
  CompletionRequest request;
  request.chat = true;
  RequestFields fields(body);
  read_common(fields, model, request);
  const bool logprobs = fields.flag("logprobs", false);
  const auto top_logprobs = fields.integer("top_logprobs", 0, kMaxLogprobs);
  if (top_logprobs && !logprobs) refuse("top_logprobs", "top_logprobs is only allowed with logprobs = true");
  if (logprobs) request.num_logprobs = top_logprobs.value_or(0);
  for (const char* name : {"tools", "functions", "audio", "prediction", "web_search_options", "store", "verbosity",
                           "documents", "chat_template", "chat_template_kwargs", "continue_final_message"})
    fields.unsupported(name);
  fields.unsupported("tool_choice", {"none"});
  fields.unsupported("function_call", {"none"});
  fields.unsupported("reasoning_effort", {"none"});
  fields.unsupported("modalities", {nlohmann::json::array({"text"})});
  fields.unsupported("add_generation_prompt", {true});
  fields.ignore("parallel_tool_calls");
  const auto older = fields.integer("max_tokens", 1, kLargest);
  const auto newer = fields.integer("max_completion_tokens", 1, kLargest);
  if (older && newer && *older != *newer) {
    refuse("max_tokens", "max_tokens and max_completion_tokens differ; give one of them");
  }
  const std::vector<ChatMessage> messages = read_messages(fields);
  fields.end();
  request.prompts = {chat_prompt(messages, model)};
  settle_lengths(request, newer ? newer : older, newer ? "max_completion_tokens" : "max_tokens", kLargest, limits);
  return request;
}

}  // namespace farskip::serve
