#include "infer/engine.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "infer/decoder.h"
#include "infer/model_runner.h"
#include "infer/request_queue.h"
#include "infer/scheduler.h"
#include "infer/step_channel.h"

namespace farskip {
namespace {

constexpr int64_t default_cache_positions = 16384;

DecoderOptions decoder_options(const ModelConfig& config, const EngineOptions& options) {
  DecoderOptions result;
  result.form = options.form;
  const int64_t of_model = options.max_model_len > 0 ? options.max_model_len : config.max_position_embeddings;
  result.max_positions = of_model;
  result.cache_positions = std::max(of_model, default_cache_positions);
  if (options.cache_positions == 0) return result;
  if (options.cache_positions < page_positions) {
    fail("a cache of {} positions; it must have {} or more", options.cache_positions, page_positions);
  }
  result.cache_positions = options.cache_positions / page_positions * page_positions;
  result.max_positions = std::min(of_model, result.cache_positions);
  return result;
}

SchedulerOptions scheduler_options(const Decoder& decoder, int64_t num_caches, const EngineOptions& options) {
  SchedulerOptions result;
  result.num_caches = num_caches;
  result.num_pages = decoder.num_pages();
  result.page_positions = page_positions;
  result.max_model_len = decoder.max_positions();
  result.max_num_seqs = options.max_num_seqs;
  result.max_num_batched_tokens = options.max_num_batched_tokens;
  result.enable_prefix_caching = options.enable_prefix_caching;
  return result;
}

GenerationEvent ending(const std::string& finish_reason, const std::string& error = "") {
  GenerationEvent event;
  event.finish_reason = finish_reason;
  event.error = error;
  return event;
}

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::none:
      return "";
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::error:
      return "error";
  }
  return "";
}

}  // namespace

class Engine::Impl {
 public:
  Impl(const InferenceModel& model, World& world, const EngineOptions& options)
      : world_(world),
        options_(options),
        async_(options.async_scheduling.value_or(world.size() > 1)),
        communicators_(Communicators::make(world, model.layout())),
        tokens_(world.all("tokens")),
        decoder_(model, communicators_, decoder_options(model.config(), options)),
        runner_(decoder_, *tokens_, model.layout()),
        channel_(world.all("plan")),
        scheduler_(scheduler_options(decoder_, ModelRunner::num_caches(model.layout()), options)),
        queue_(options.max_num_seqs + options.max_num_waiting) {
    if (options.max_num_waiting < 0) fail("max_num_waiting is {}; it must be 0 or more", options.max_num_waiting);
    stats_.cache_positions = scheduler_.pages_in_all() * page_positions;
  }
  ~Impl() { end_all("the engine is gone", "abort"); }

  void run() {
    try {
      pass_on_next();
      for (StepMessage message = channel_.receive(); message.kind != StepMessage::Kind::stop;
           message = channel_.receive()) {
        carry_out(message);
      }
    } catch (const std::exception& error) {
      channel_.abandon();
      world_.abort(error.what());
      end_all(error.what(), "error");
      throw;
    }
    end_all("the engine has stopped", "abort");
  }

  void stop() { queue_.stop(); }
  void cancel(uint64_t id) { queue_.cancel(id); }
  int64_t max_positions() const { return decoder_.max_positions(); }

  uint64_t submit(GenerationRequest request, OnEvent on_event) {
    check(request);
    return queue_.push({std::move(request), std::move(on_event), {}});
  }

  EngineStats stats() const {
    const std::lock_guard lock(stats_mutex_);
    EngineStats result = stats_;
    result.num_waiting += queue_.num_queued();
    return result;
  }

 private:
  bool leads() const { return channel_.sends(); }

  void check(const GenerationRequest& request) const {
    if (!leads()) fail("rank 0 takes requests, this is rank {}", world_.rank());
    request.sampling.check();
    const int64_t vocab_size = decoder_.vocab_size();
    if (request.prompt.empty()) fail("the prompt is empty; give at least one token to continue");
    if (std::ssize(request.prompt) >= max_positions()) {
      fail("a prompt of {} tokens leaves no room for others: the model is run with {} positions", request.prompt.size(),
           max_positions());
    }
    for (const int32_t id : request.prompt) {
      if (id < 0 || id >= vocab_size) fail("prompt token {} is outside the model's vocabulary of {}", id, vocab_size);
    }
    if (request.max_tokens < 0) fail("max_tokens is {}; it must be 0 or more", request.max_tokens);
    if (request.num_logprobs > vocab_size) {
      fail("{} logprobs of a vocabulary of {}; ask for fewer", request.num_logprobs, vocab_size);
    }
  }

  /// Of asynchronous ranks the next plan travels while this one is carried out.
  void carry_out(const StepMessage& message) {
    if (message.kind == StepMessage::Kind::idle) {
      runner_.follow(message);
      if (leads() && scheduler_.num_running() + scheduler_.num_waiting() == 0) {
        queue_.wait(world_.size() > 1 ? std::optional(options_.heartbeat_s) : std::nullopt);
      }
      return pass_on_next();
    }
    if (async_) pass_on_next();
    std::vector<ChunkResult> results = runner_.run(message);
    if (leads()) tell(message.plan, results);
    if (!async_) pass_on_next();
  }

  void pass_on_next() { channel_.launch(leads() ? next_message() : StepMessage()); }

  StepMessage next_message() {
    RequestQueue::Arrivals arrivals = queue_.take();
    for (auto& [id, request] : arrivals.requests) {
      const GenerationRequest& r = request.request;
      prompt_tokens_ += std::ssize(r.prompt);
      scheduler_.add(id, {r.prompt, r.max_tokens, r.stop_tokens, r.prompt_logprobs});
      requests_.emplace(id, std::move(request));
    }
    for (const uint64_t id : arrivals.cancelled) {
      if (scheduler_.cancel(id)) send(id, ending("abort"));
    }
    StepMessage message;
    if (arrivals.stopping) {
      message.kind = StepMessage::Kind::stop;
      return message;
    }
    message.plan = scheduler_.schedule();
    if (!message.plan.chunks.empty()) message.kind = StepMessage::Kind::step;
    for (const StepPlan::Admission& admission : message.plan.admitted) {
      const GenerationRequest& r = requests_.at(admission.id).request;
      message.admitted.push_back({admission.id, admission.cache, scheduler_.tokens(admission.id), std::ssize(r.prompt),
                                  r.sampling, r.stream, r.num_logprobs});
    }
    update_stats(0);
    return message;
  }

  void tell(const StepPlan& plan, std::vector<ChunkResult>& results) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < results.size(); ++i) {
      tokens.push_back(results[i].token);
      keep_of_prompt(plan.chunks[i], results[i]);
    }
    const auto progresses = scheduler_.update(plan, tokens);
    for (const SequenceProgress& progress : progresses) {
      if (progress.token) ++generated_tokens_;
    }
    update_stats(1);
    for (const SequenceProgress& progress : progresses) {
      ChunkResult& result = results[progress.chunk];
      const uint64_t id = plan.chunks[progress.chunk].id;
      GenerationEvent event;
      if (progress.token) event.tokens.push_back(*progress.token);
      if (progress.token && result.logprobs) event.logprobs.push_back(*std::move(result.logprobs));
      if (!progress.token && progress.finished == FinishReason::stop) event.of_stop_token = std::move(result.logprobs);
      event.of_prompt = std::exchange(requests_.at(id).of_prompt, {});
      event.finish_reason = to_string(progress.finished);
      event.error = std::move(result.error);
      send(id, std::move(event));
    }
  }

  /// A prompt that is computed again before its first token is judged again.
  void keep_of_prompt(const ScheduledChunk& chunk, ChunkResult& result) {
    const auto found = requests_.find(chunk.id);
    if (result.of_prompt.empty() || found == requests_.end()) return;
    EngineRequest& request = found->second;
    request.of_prompt.resize(request.request.prompt.size() - 1);
    std::move(result.of_prompt.begin(), result.of_prompt.end(), request.of_prompt.begin() + chunk.position);
  }

  /// A caller that fails loses its request and nobody else's.
  void send(uint64_t id, const GenerationEvent& event) {
    const auto found = requests_.find(id);
    FARSKIP_CHECK(found != requests_.end(), "an event for a request that has ended");
    const OnEvent on_event = found->second.on_event;
    if (!event.finish_reason.empty()) {
      requests_.erase(found);
      queue_.ended();
    }
    try {
      if (on_event) on_event(event);
    } catch (const std::exception& error) {
      log_warning(fmt::format("request {}: {}", id, error.what()));
      queue_.cancel(id);
    }
  }

  void end_all(const std::string& closed, const std::string& finish_reason) {
    requests_.merge(queue_.close(closed));
    while (!requests_.empty()) {
      send(requests_.begin()->first, ending(finish_reason, finish_reason == "error" ? closed : ""));
    }
    const std::lock_guard lock(stats_mutex_);
    stats_.num_running = stats_.num_waiting = stats_.cache_positions_used = 0;
  }

  void update_stats(int64_t num_steps) {
    const std::lock_guard lock(stats_mutex_);
    stats_.num_running = scheduler_.num_running();
    stats_.num_waiting = scheduler_.num_waiting();
    stats_.cache_positions_used = scheduler_.pages_used() * page_positions;
    stats_.prompt_tokens = prompt_tokens_;
    stats_.cached_prompt_tokens = scheduler_.cached_prompt_tokens();
    stats_.generated_tokens = generated_tokens_;
    stats_.num_preemptions = scheduler_.num_preemptions();
    stats_.num_steps += num_steps;
  }

  World& world_;
  const EngineOptions options_;
  const bool async_;
  const Communicators communicators_;
  const std::unique_ptr<Transport> tokens_;
  Decoder decoder_;
  ModelRunner runner_;
  StepChannel channel_;
  // Rank 0's.
  Scheduler scheduler_;
  std::map<uint64_t, EngineRequest> requests_;  ///< that have not ended
  RequestQueue queue_;
  int64_t prompt_tokens_ = 0, generated_tokens_ = 0;
  mutable std::mutex stats_mutex_;
  EngineStats stats_;
};

Engine::Engine(const InferenceModel& model, World& world, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(model, world, options)) {}
Engine::~Engine() = default;

void Engine::run() { impl_->run(); }
void Engine::stop() { impl_->stop(); }
uint64_t Engine::submit(GenerationRequest request, OnEvent on_event) {
  return impl_->submit(std::move(request), std::move(on_event));
}
void Engine::cancel(uint64_t id) { impl_->cancel(id); }
EngineStats Engine::stats() const { return impl_->stats(); }
int64_t Engine::max_positions() const { return impl_->max_positions(); }

}  // namespace farskip
