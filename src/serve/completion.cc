#include "serve/completion.h"

#include "base/error.h"
#include "base/progress.h"
#include "serve/api_error.h"

namespace farskip::serve {
namespace {

constexpr double kAskWhetherGone_s = 0.2;

GenerationRequest generation_request(const CompletionRequest& request, const Prompt& prompt, size_t index) {
  GenerationRequest result;
  result.prompt = prompt.tokens;
  result.max_tokens = request.max_tokens;
  result.sampling = request.sampling;
  result.stream = index;
  result.stop_tokens = request.stop_tokens;
  result.num_logprobs = request.num_logprobs;
  result.prompt_logprobs = request.echo && request.num_logprobs >= 0;
  return result;
}

void append(TextDelta& to, TextDelta&& from) {
  to.text += from.text;
  for (auto& token : from.tokens) to.tokens.push_back(std::move(token));
}

std::string event_text(const nlohmann::json& json) { return "data: " + dump(json) + "\n\n"; }

}  // namespace

Completion::Completion(CompletionRequest request, const ServedModel& model, GenerationService& service,
                       Metrics& metrics)
    : request_(std::move(request)),
      model_(model),
      service_(service),
      metrics_(metrics),
      form_(request_, model),
      begin_s_(monotonic_seconds()),
      begun_(request_.num_sequences(), false),
      progress_(request_.num_sequences()) {
  std::vector<GenerationRequest> requests;
  const bool nothing_to_run = request_.max_tokens == 0 && request_.num_logprobs < 0;  // an echo alone
  for (size_t i = 0; i < progress_.size(); ++i) {
    choices_.emplace_back(request_, prompt_of(i), model_);
    if (!nothing_to_run) requests.push_back(generation_request(request_, prompt_of(i), i));
  }
  num_open_ = requests.size();
  try {
    sequences_ = std::make_unique<Sequences>(service_, std::move(requests));
  } catch (const Overloaded& error) {
    throw ApiError(503, error.what(), "", "overloaded");
  } catch (const Error& error) {
    throw ApiError(400, error.what());
  }
}

const Prompt& Completion::prompt_of(size_t index) const {
  return request_.prompts[index / static_cast<size_t>(request_.n)];
}

Usage Completion::usage() const {
  Usage usage;
  for (const Prompt& prompt : request_.prompts) usage.prompt_tokens += std::ssize(prompt.tokens);
  for (const ChoiceText& choice : choices_) usage.completion_tokens += choice.num_tokens();
  return usage;
}

void Completion::time(const Sequences::Event& event) {
  Progress& progress = progress_[event.sequence];
  if (progress.ended || event.event.tokens.empty()) return;
  if (progress.num_told == 0) {
    progress.first_s = event.time_s;
    metrics_.first_token(event.time_s - begin_s_);
  } else {
    metrics_.next_token(event.time_s - progress.last_s);
  }
  progress.last_s = event.time_s;
  progress.num_told += std::ssize(event.event.tokens);
}

void Completion::ended(size_t index, const std::string& reason) {
  Progress& progress = progress_[index];
  progress.ended = true;
  --num_open_;
  const double last = progress.num_told > 0 ? progress.last_s : monotonic_seconds();
  const double per_token =
      progress.num_told > 1 ? (progress.last_s - progress.first_s) / static_cast<double>(progress.num_told - 1) : -1;
  metrics_.sequence_ended(reason, std::ssize(prompt_of(index).tokens), choices_[index].num_tokens(), last - begin_s_,
                          per_token);
}

bool Completion::take(const Sequences::Event& event, const OnDelta& on_delta) {
  const size_t index = event.sequence;
  if (progress_[index].ended) return true;  // what came before its cancellation was heard
  time(event);
  ChoiceText& choice = choices_[index];
  TextDelta delta;
  if (request_.echo && !begun_[index]) delta = choice.echo(event.event.of_prompt);
  begun_[index] = true;
  append(delta, choice.push(event.event));
  const std::string& reason = choice.finish_reason();
  if (!reason.empty()) ended(index, reason);
  if (reason == "error") throw ApiError(500, event.event.error.empty() ? "the engine failed" : event.event.error);
  if (reason == "abort") throw ApiError(503, "the server ended the request: it is shutting down", "", "shutting_down");
  if (reason == "stop" && event.event.finish_reason.empty()) sequences_->cancel(index);  // a stop string
  return on_delta(index, std::move(delta), reason);
}

bool Completion::run(const IsGone& is_gone, const OnDelta& on_delta) {
  if (num_open_ == 0) {
    for (size_t i = 0; i < choices_.size(); ++i) {
      if (!on_delta(i, choices_[i].echo({}), "length")) return false;
    }
  }
  const auto leave = [&] {
    for (size_t i = 0; i < progress_.size(); ++i) {
      if (!progress_[i].ended) ended(i, "abort");
    }
    return false;
  };
  double asked_s = monotonic_seconds();
  try {
    while (num_open_ > 0) {
      const auto event = sequences_->next(kAskWhetherGone_s);
      if (event && !take(*event, on_delta)) return leave();
      if (!event || monotonic_seconds() - asked_s > kAskWhetherGone_s) {
        asked_s = monotonic_seconds();
        if (is_gone()) return leave();
      }
    }
  } catch (...) {
    leave();
    throw;
  }
  return true;
}

nlohmann::json Completion::answer(const IsGone& is_gone) {
  std::vector<TextDelta> all(choices_.size());
  std::vector<std::string> reasons(choices_.size());
  const bool complete = run(is_gone, [&](size_t index, TextDelta delta, const std::string& reason) {
    append(all[index], std::move(delta));
    reasons[index] = reason;
    return true;
  });
  if (!complete) return nullptr;
  nlohmann::json choices = nlohmann::json::array();
  for (size_t i = 0; i < all.size(); ++i) choices.push_back(form_.choice(i, all[i], reasons[i]));
  return form_.whole(std::move(choices), usage());
}

void Completion::stream(const Write& write, const IsGone& is_gone) {
  std::vector<bool> opened(choices_.size(), !request_.chat);
  try {
    const bool complete = run(is_gone, [&](size_t index, TextDelta delta, const std::string& reason) {
      if (!opened[index] && !write(event_text(form_.begin_chunk(index)))) return false;
      opened[index] = true;
      if (delta.text.empty() && delta.tokens.empty() && reason.empty()) return true;  // all of it held back
      return write(event_text(form_.chunk(index, delta, reason)));
    });
    if (!complete) return;
    if (request_.include_usage && !write(event_text(form_.usage_chunk(usage())))) return;
  } catch (const ApiError& error) {
    if (!write(event_text(error.json()))) return;
  }
  write("data: [DONE]\n\n");
}

}  // namespace farskip::serve
