#include "serve/choice_text.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace farskip::serve {

int64_t num_characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xC0) != 0x80; });
}

ChoiceText::ChoiceText(const CompletionRequest& request, const Prompt& prompt, const ServedModel& model)
    : request_(request), prompt_(prompt), decoder_(model.decoder()), stop_(request.stops) {
  if (request.echo) return;  // echo() reads the prompt
  // A token's text depends on whether something stands before it (a leading space).
  for (const int32_t token : prompt.tokens) decoder_(token);
}

/// Whole characters alone.
std::string ChoiceText::decode(int32_t token) {
  cut_ += decoder_(token);
  const size_t ready = token < 0 ? cut_.size() : cut_.size() - cut_utf8_bytes(cut_);
  std::string text = replace_invalid_utf8(std::string_view(cut_).substr(0, ready));
  cut_.erase(0, ready);
  return text;
}

TextDelta ChoiceText::echo(const std::vector<TokenLogprobs>& of_prompt) {
  TextDelta delta;
  std::string decoded;
  for (size_t i = 0; i < prompt_.tokens.size(); ++i) {
    if (request_.num_logprobs >= 0) {
      ShownToken token{{.token = prompt_.tokens[i], .logprob = 0, .top = {}}, false, offset_};
      if (i > 0 && i <= of_prompt.size()) token = {of_prompt[i - 1], true, offset_};
      delta.tokens.push_back(std::move(token));
    }
    const std::string text = decode(prompt_.tokens[i]);
    offset_ += num_characters(text);
    decoded += text;
  }
  if (request_.max_tokens == 0) decoded += decode(-1);
  delta.text = prompt_.text ? replace_invalid_utf8(*prompt_.text) : decoded;
  offset_ = num_characters(delta.text);
  return delta;
}

void ChoiceText::show(const std::string& text, TextDelta& delta) {
  shown_ += text.size();
  delta.text += text;
  // Of a stop string's tokens those that begin before it.
  while (!held_.empty() && (held_.front().end <= shown_ || (stop_.stopped() && held_.front().begin < shown_))) {
    delta.tokens.push_back({std::move(held_.front().logprobs), true, held_.front().offset});
    held_.pop_front();
  }
}

void ChoiceText::finish(const std::string& reason, const std::optional<TokenLogprobs>& of_stop_token,
                        TextDelta& delta) {
  const std::string rest = decode(-1);
  decoded_ += rest.size();
  show(stop_.push(rest), delta);
  show(stop_.finish(), delta);
  finish_reason_ = stop_.stopped() ? "stop" : reason;
  if (stop_.stopped()) return;
  // Tokens without text, and those whose character was never completed.
  for (Held& token : held_) delta.tokens.push_back({std::move(token.logprobs), true, token.offset});
  held_.clear();
  if (of_stop_token && !request_.chat) delta.tokens.push_back({*of_stop_token, true, offset_});
}

TextDelta ChoiceText::push(const GenerationEvent& event) {
  TextDelta delta;
  if (!finish_reason_.empty()) return delta;
  for (size_t i = 0; i < event.tokens.size(); ++i) {
    ++num_tokens_;
    const std::string text = decode(event.tokens[i]);
    if (request_.num_logprobs >= 0 && i < event.logprobs.size()) {
      held_.push_back({event.logprobs[i], decoded_, decoded_ + text.size(), offset_});
    }
    decoded_ += text.size();
    offset_ += num_characters(text);
    show(stop_.push(text), delta);
    if (stop_.stopped()) {
      finish_reason_ = "stop";
      return delta;
    }
  }
  if (!event.finish_reason.empty()) finish(event.finish_reason, event.of_stop_token, delta);
  return delta;
}

}  // namespace farskip::serve
