#include "infer/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

constexpr int64_t page_positions = nn::KvPages::page_positions;

int64_t pages_of(int64_t positions) { return (positions + page_positions - 1) / page_positions; }

int64_t positions_of(const ModelConfig& config, const DecoderOptions& options) {
  return options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
}

}  // namespace

Decoder::Decoder(const InferenceModel& model, const Communicators& communicators, const DecoderOptions& options)
    : model_(model),
      max_positions_(positions_of(model.config(), options)),
      num_pages_(pages_of(std::max(options.cache_positions, max_positions_))),
      math_(model.config(), model.weights(), max_positions_, {}),
      graph_(
          build_graph(model.config(), model.connectivity(), {Phase::decode, {.all_to_all = true}, 1, Scope::forward})),
      cache_(model.config().attention, model.config().num_layers(), num_pages_, model.dtype()) {
  ExecutorOptions executor;
  executor.record_spans = false;
  executor.observe = [this](const Value& value, const at::Tensor& tensor) {
    if (value.name == "mb0.logits") logits_ = tensor;
  };
  executor_ = std::make_unique<Executor>(graph_, reference_schedule(graph_), math_, communicators, executor);
  for (int64_t page = num_pages_; page > 0; --page) free_pages_.push_back(static_cast<int32_t>(page - 1));
}

Decoder::~Decoder() = default;

int64_t Decoder::add() {
  sequences_[next_sequence_] = {};
  return next_sequence_++;
}

void Decoder::truncate(int64_t sequence, int64_t length) {
  Sequence& state = sequences_.at(sequence);
  FARSKIP_CHECK(length <= state.length, "a sequence is truncated, not extended");
  state.length = length;
  while (std::ssize(state.pages) > pages_of(length)) {
    free_pages_.push_back(state.pages.back());
    state.pages.pop_back();
  }
}

void Decoder::remove(int64_t sequence) {
  truncate(sequence, 0);
  sequences_.erase(sequence);
}

void Decoder::reserve(Sequence& sequence, int64_t length) {
  if (length > max_positions_) {
    fail("a sequence of {} tokens; the model is run with at most {} positions", length, max_positions_);
  }
  const int64_t missing = pages_of(length) - std::ssize(sequence.pages);
  if (missing > std::ssize(free_pages_)) {
    fail(
        "the cache is full: {} pages of {} positions are needed, {} are free; run fewer or shorter sequences at a time",
        missing, page_positions, free_pages_.size());
  }
  for (int64_t i = 0; i < missing; ++i) {
    sequence.pages.push_back(free_pages_.back());
    free_pages_.pop_back();
  }
}

at::Tensor Decoder::step(const std::vector<DecoderInput>& inputs, bool every_token) {
  std::vector<PagedInput> paged;
  for (const DecoderInput& input : inputs) {
    FARSKIP_CHECK(!input.tokens.empty(), "a sequence without new tokens");
    Sequence& sequence = sequences_.at(input.sequence);
    reserve(sequence, sequence.length + std::ssize(input.tokens));
    paged.push_back(
        {&sequence.pages, sequence.length, input.tokens, every_token ? std::ssize(input.tokens) : int64_t{1}});
  }
  const at::Tensor logits = run(paged);
  for (const DecoderInput& input : inputs) sequences_.at(input.sequence).length += std::ssize(input.tokens);
  return logits;
}

at::Tensor Decoder::run(const std::vector<PagedInput>& inputs) {
  const at::NoGradGuard no_grad;
  if (inputs.empty()) return at::empty({0, model_.config().vocab_size}, at::kFloat);
  std::vector<int64_t> tokens, positions, rows;
  nn::CacheStep cache{&cache_, {}};
  for (const PagedInput& input : inputs) {
    const auto num = static_cast<int64_t>(input.tokens.size());
    cache.chunks.push_back({input.pages, static_cast<int64_t>(tokens.size()), num, input.position});
    for (int64_t i = 0; i < num; ++i) {
      if (i >= num - input.num_logits) rows.push_back(static_cast<int64_t>(tokens.size()));
      tokens.push_back(input.tokens[i]);
      positions.push_back(input.position + i);
    }
  }
  const auto row = [](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).unsqueeze(0); };
  Batch batch;
  batch.tokens = row(tokens);
  batch.positions = row(positions);
  batch.cache = &cache;
  if (rows.size() < tokens.size()) batch.head_rows = at::tensor(rows, at::kLong);
  executor_->run({batch});
  return std::exchange(logits_, at::Tensor())[0].to(at::kFloat);
}

at::Tensor Decoder::read(int64_t sequence, std::span<const int32_t> tokens) {
  FARSKIP_CHECK(!tokens.empty(), "a sequence without new tokens");
  at::Tensor logits;
  while (!tokens.empty()) {
    const auto part = tokens.first(std::min<size_t>(prompt_chunk, tokens.size()));
    logits = step({{sequence, {part.begin(), part.end()}}})[0];
    tokens = tokens.subspan(part.size());
  }
  return logits;
}

void with_decoder(const InferenceModel& model, const DecoderOptions& options,
                  const std::function<void(Decoder&)>& body) {
  run_ranks(1, [&](World& world) {
    const Communicators communicators = Communicators::make(world, {});
    Decoder decoder(model, communicators, options);
    body(decoder);
  });
}

}  // namespace farskip
