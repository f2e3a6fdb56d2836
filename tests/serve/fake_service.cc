#include "tests/serve/fake_service.h"

#include "base/error.h"

namespace farskip::testing {
namespace {

TokenLogprobs logprobs_of(int32_t token, int64_t num_top) {
  TokenLogprobs result{token, -0.5f, {}};
  for (int64_t i = 0; i < num_top; ++i) {
    result.top.emplace_back(static_cast<int32_t>((token + i) % 256), -0.5f - static_cast<float>(i));
  }
  return result;
}

}  // namespace

std::vector<int32_t> byte_tokens(const std::string& text) {
  std::vector<int32_t> tokens;
  for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
  return tokens;
}

serve::ServedModel byte_model() {
  serve::ServedModel model;
  model.names = {"bytes", "also/bytes"};
  model.vocab_size = 320;
  model.end_tokens = {256};
  model.encode = [](const std::string& text, bool) { return byte_tokens(text); };
  const auto bytes = [](int32_t id) { return id >= 0 && id < 256 ? std::string(1, static_cast<char>(id)) : ""; };
  model.token_bytes = bytes;
  model.decoder = [bytes] { return bytes; };
  model.render_chat = [](std::span<const ChatMessage> messages) {
    std::string text;
    for (const auto& message : messages) {
      if (message.role == "system" && !text.empty()) fail("the system's message must be the first");
      text += message.role + ": " + message.content + "\n";
    }
    return text + "assistant: ";
  };
  return model;
}

FakeService::FakeService(int64_t max_positions) : max_positions_(max_positions), thread_([this] { run(); }) {}

FakeService::~FakeService() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void FakeService::say(const std::string& text) {
  const std::lock_guard lock(mutex_);
  text_ = text;
}
void FakeService::allow(int64_t num_tokens) {
  {
    const std::lock_guard lock(mutex_);
    allowed_ = num_tokens;
  }
  changed_.notify_all();
}
void FakeService::fail_after(int64_t num_tokens, const std::string& error) {
  const std::lock_guard lock(mutex_);
  fail_after_ = num_tokens;
  error_ = error;
}
void FakeService::accept_at_most(size_t num_sequences) {
  const std::lock_guard lock(mutex_);
  most_ = num_sequences;
}

std::vector<GenerationRequest> FakeService::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}
size_t FakeService::num_open() const {
  const std::lock_guard lock(mutex_);
  return open_.size();
}
size_t FakeService::num_cancelled() const {
  const std::lock_guard lock(mutex_);
  return num_cancelled_;
}

uint64_t FakeService::submit(GenerationRequest request, OnEvent on_event) {
  uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (open_.size() >= most_) throw Overloaded("too many wait");
    if (request.prompt.size() == 13) fail("13 tokens are never read");
    requests_.push_back(request);
    stats_.prompt_tokens += std::ssize(request.prompt);
    id = requests_.size();
    open_.emplace(id, Sequence{std::move(request), std::move(on_event), text_});
  }
  changed_.notify_all();
  return id;
}

void FakeService::cancel(uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(id);
    if (found == open_.end()) return;
    found->second.cancelled = true;
    ++num_cancelled_;
  }
  changed_.notify_all();
}

EngineStats FakeService::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.num_running = std::ssize(open_);
  stats.cache_positions = 1000;
  stats.cache_positions_used = 250;
  return stats;
}

GenerationEvent FakeService::step(Sequence& sequence) {
  const GenerationRequest& request = sequence.request;
  GenerationEvent event;
  if (sequence.told == 0 && request.prompt_logprobs) {
    for (size_t i = 1; i < request.prompt.size(); ++i)
      event.of_prompt.push_back(logprobs_of(request.prompt[i], request.num_logprobs));
  }
  if (sequence.cancelled) {
    event.finish_reason = "abort";
  } else if (static_cast<int64_t>(sequence.told) == fail_after_) {
    event.finish_reason = "error";
    event.error = error_;
  } else if (sequence.told == sequence.text.size()) {
    event.finish_reason = request.max_tokens == 0 ? "length" : "stop";
    if (request.max_tokens > 0 && request.num_logprobs >= 0)
      event.of_stop_token = logprobs_of(256, request.num_logprobs);
  } else if (request.max_tokens == 0) {
    event.finish_reason = "length";
  } else {
    const auto token = static_cast<unsigned char>(sequence.text[sequence.told++]);
    event.tokens.push_back(token);
    if (request.num_logprobs >= 0) event.logprobs.push_back(logprobs_of(token, request.num_logprobs));
    if (static_cast<int64_t>(sequence.told) == request.max_tokens) event.finish_reason = "length";
    ++stats_.generated_tokens;
    --allowed_;
  }
  return event;
}

void FakeService::run() {
  std::unique_lock lock(mutex_);
  uint64_t last = 0;
  for (;;) {
    // Sequences take turns.
    const auto ready = [&](const auto& entry) { return allowed_ > 0 || entry.second.cancelled; };
    const auto next = [&] {
      auto found = std::find_if(open_.upper_bound(last), open_.end(), ready);
      return found != open_.end() ? found : std::find_if(open_.begin(), open_.end(), ready);
    };
    changed_.wait(lock, [&] { return ended_ || next() != open_.end(); });
    if (ended_) return;
    const auto found = next();
    last = found->first;
    const GenerationEvent event = step(found->second);
    const OnEvent on_event = found->second.on_event;
    if (!event.finish_reason.empty()) open_.erase(found);
    ++stats_.num_steps;
    lock.unlock();
    on_event(event);
    lock.lock();
  }
}

}  // namespace farskip::testing
