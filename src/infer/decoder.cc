#include "infer/decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

constexpr Phase phase = Phase::decode;

/// One rank has nobody to gather tokens from.
Layout layout_of(const InferenceModel& model) {
  Layout layout = model.layout();
  if (layout.expert_group() == 1) layout.all_to_all = true;
  return layout;
}

/// Where part i of n of `total` tokens ends.
int64_t part_end(int64_t total, int64_t part, int64_t num_parts) {
  return ((part + 1) * total + num_parts - 1) / num_parts;
}

StageMathOptions math_options(const InferenceModel& model) {
  const Layout layout = layout_of(model);
  StageMathOptions options;
  options.expert_ranks = layout.expert_divisor(phase);
  options.exchange = layout.exchange(phase);
  options.expert_rank = model.share().expert_rank();
  return options;
}

int64_t positions_of(const ModelConfig& config, const DecoderOptions& options) {
  return options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
}

}  // namespace

StepBucket StepBucket::of(int64_t tokens, int64_t longest_chunk) {
  StepBucket bucket{longest_chunk > 1 ? Phase::prefill : Phase::decode, 1};
  while (bucket.tokens < tokens) bucket.tokens *= 2;
  return bucket;
}

/// Tokens of one microbatch: of each sequence a run.
struct Decoder::Part {
  struct Run {
    const PagedInput* input;
    int64_t first, num;  ///< tokens of the input
  };
  std::vector<Run> runs;
  int64_t num_tokens() const {
    int64_t sum = 0;
    for (const Run& run : runs) sum += run.num;
    return sum;
  }
};

Decoder::Decoder(const InferenceModel& model, const Communicators& communicators, const DecoderOptions& options)
    : model_(model),
      communicators_(communicators),
      max_positions_(positions_of(model.config(), options)),
      num_pages_(pages_of(std::max(options.cache_positions, max_positions_))),
      record_spans_(options.record_spans),
      form_(options.form),
      on_experts_(options.on_experts),
      math_(model.local_config(), model.weights(), max_positions_, math_options(model)),
      cache_(model.local_config().attention, model.config().num_layers(), num_pages_, model.dtype()) {
  if (!form_) only_ = prepare({options.num_microbatches, reference_schedule});
  for (int64_t page = num_pages_; page > 0; --page) free_pages_.push_back(static_cast<int32_t>(page - 1));
}

std::unique_ptr<Decoder::Prepared> Decoder::prepare(const StepForm& form) {
  const GraphOptions options{phase, layout_of(model_), form.num_microbatches, Scope::forward};
  auto prepared = std::make_unique<Prepared>(build_graph(model_.config(), model_.connectivity(), options), nullptr);
  set_executor(*prepared, form.schedule(prepared->graph));
  return prepared;
}

void Decoder::set_executor(Prepared& prepared, const Schedule& schedule) {
  ExecutorOptions options;
  options.record_spans = record_spans_;
  options.observe = [this, &graph = prepared.graph](const Value& value, const at::Tensor& tensor) {
    const Node& producer = graph.node(value.producer);
    if (producer.stage == Stage::head) logits_[producer.microbatch] = tensor;
    // Of what a router writes, weights and ids, the ids are whole numbers.
    if (producer.stage == Stage::route && on_experts_ && tensor.scalar_type() == at::kLong)
      on_experts_(producer.layer, tensor);
  };
  prepared.executor = std::make_unique<Executor>(prepared.graph, schedule, math_, communicators_, options);
}

void Decoder::set_schedule(const Schedule& schedule) {
  FARSKIP_CHECK(only_ != nullptr, "a decoder has either a form for each bucket or one schedule");
  set_executor(*only_, schedule);
}

Decoder::Prepared& Decoder::prepared_for(const std::vector<PagedInput>& inputs, const DecoderStep& options) {
  if (only_) return *only_;
  int64_t num_tokens = 0, longest = 0;
  for (const PagedInput& input : inputs) {
    num_tokens += std::ssize(input.tokens);
    longest = std::max<int64_t>(longest, std::ssize(input.tokens));
  }
  const StepBucket bucket = options.bucket.value_or(StepBucket::of(num_tokens, longest));
  std::unique_ptr<Prepared>& prepared = prepared_[bucket];
  if (!prepared) prepared = prepare(form_(bucket));
  return *prepared;
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

/// The tokens in equal parts, in order: the one that a boundary cuts goes on in the next part, which finds its
/// positions in the cache.
std::vector<Decoder::Part> Decoder::divide(const std::vector<PagedInput>& inputs, int64_t num_parts) {
  int64_t total = 0;
  for (const PagedInput& input : inputs) total += std::ssize(input.tokens);
  std::vector<Part> parts(num_parts);
  int64_t done = 0;
  for (const PagedInput& input : inputs) {
    const int64_t size = std::ssize(input.tokens);
    for (int64_t first = 0; first < size;) {
      int64_t part = 0;
      while (part_end(total, part, num_parts) <= done) ++part;
      const int64_t end = part_end(total, part, num_parts);
      const int64_t num = std::min(size - first, end - done);
      parts[part].runs.push_back({&input, first, num});
      first += num;
      done += num;
    }
  }
  return parts;
}

std::vector<std::vector<int64_t>> Decoder::tokens_of_ranks(int64_t own, const DecoderStep& options,
                                                           int64_t num_parts) const {
  std::vector<std::vector<int64_t>> result(num_parts);
  if (math_.options().exchange != Exchange::gather) return result;
  std::vector<int64_t> totals = options.rank_tokens;
  if (totals.empty()) {
    const at::Tensor all = communicators_.expert->all_gather(at::full({1}, own, at::kLong), "tokens of ranks").await();
    totals.assign(all.const_data_ptr<int64_t>(), all.const_data_ptr<int64_t>() + all.numel());
  }
  for (int64_t part = 0; part < num_parts; ++part) {
    for (int64_t total : totals)
      result[part].push_back(part_end(total, part, num_parts) - part_end(total, part - 1, num_parts));
  }
  return result;
}

at::Tensor Decoder::step(const std::vector<DecoderInput>& inputs, const DecoderStep& options) {
  std::vector<PagedInput> paged;
  for (const DecoderInput& input : inputs) {
    FARSKIP_CHECK(!input.tokens.empty(), "a sequence without new tokens");
    Sequence& sequence = sequences_.at(input.sequence);
    const int64_t num = std::ssize(input.tokens);
    reserve(sequence, sequence.length + num);
    paged.push_back({&sequence.pages, sequence.length, input.tokens, options.every_token ? num : int64_t{1}});
  }
  const at::Tensor logits = run(paged, options);
  for (const DecoderInput& input : inputs) sequences_.at(input.sequence).length += std::ssize(input.tokens);
  return logits;
}

at::Tensor Decoder::run(const std::vector<PagedInput>& inputs, const DecoderStep& options) {
  const at::NoGradGuard no_grad;
  const at::AutoDispatchBelowADInplaceOrView no_tracking;  // of views and versions: a step makes thousands of calls
  const Prepared& prepared = prepared_for(inputs, options);
  const int64_t num_parts = prepared.graph.options().num_microbatches;
  const std::vector<Part> parts = divide(inputs, num_parts);
  int64_t num_tokens = 0;
  for (const Part& part : parts) num_tokens += part.num_tokens();
  const auto rank_tokens = tokens_of_ranks(num_tokens, options, num_parts);
  const auto row = [](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); };
  std::vector<nn::CacheStep> caches(parts.size(), {&cache_, {}});
  std::vector<Batch> batches(parts.size());
  int64_t first_token = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    std::vector<int64_t> tokens, positions, rows;
    for (const Part::Run& run : parts[i].runs) {
      const PagedInput& input = *run.input;
      const int64_t first_logits = std::ssize(input.tokens) - (options.logits ? input.num_logits : 0);
      caches[i].chunks.push_back({input.pages, std::ssize(tokens), run.num, input.position + run.first});
      for (int64_t t = run.first; t < run.first + run.num; ++t) {
        if (t >= first_logits) rows.push_back(std::ssize(tokens));
        tokens.push_back(input.tokens[t]);
        positions.push_back(input.position + t);
      }
    }
    batches[i].tokens = row(tokens).unsqueeze(0);
    batches[i].positions = row(positions).unsqueeze(0);
    batches[i].cache = &caches[i];
    batches[i].rank_tokens = rank_tokens[i];
    if (rows.size() < tokens.size()) batches[i].head_rows = row(rows);
    if (options.experts.defined())
      batches[i].experts.assign(prepared.graph.num_layers(),
                                options.experts.narrow(0, first_token, std::ssize(tokens)));
    first_token += std::ssize(tokens);
  }
  logits_.assign(num_parts, {});
  last_ = prepared.executor->run(std::move(batches));
  for (at::Tensor& logits : logits_) logits = logits.view({-1, logits.size(-1)});
  const at::Tensor all = num_parts == 1 ? logits_[0] : at::cat(logits_);
  logits_.clear();
  return all.to(at::kFloat);
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
  const Worlds worlds = make_loopback(1);
  const Communicators communicators = Communicators::make(*worlds.front(), {});
  Decoder decoder(model, communicators, options);
  body(decoder);
}

}  // namespace farskip
