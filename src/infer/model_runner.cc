#include "infer/model_runner.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/error.h"

namespace farskip {
namespace {

int64_t of_float(float value) { return std::bit_cast<int32_t>(value); }
float to_float(int64_t number) { return std::bit_cast<float>(static_cast<int32_t>(number)); }

/// One judged token: its id, its logprob, and `num_top` pairs of those.
int64_t packed_size(int64_t num_top) { return 2 + 2 * num_top; }

void pack(const TokenLogprobs& value, std::vector<int64_t>& numbers) {
  numbers.push_back(value.token);
  numbers.push_back(of_float(value.logprob));
  for (const auto& [id, logprob] : value.top) {
    numbers.push_back(id);
    numbers.push_back(of_float(logprob));
  }
}

TokenLogprobs unpack(const int64_t* numbers, int64_t num_top) {
  TokenLogprobs value{static_cast<int32_t>(numbers[0]), to_float(numbers[1]), {}};
  for (int64_t i = 1; i <= num_top; ++i)
    value.top.emplace_back(static_cast<int32_t>(numbers[2 * i]), to_float(numbers[2 * i + 1]));
  return value;
}

TokenLogprobs of_row(const float* logprobs, int64_t vocab_size, int32_t token, int64_t num_top) {
  std::vector<int32_t> ids(vocab_size);
  std::iota(ids.begin(), ids.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    return logprobs[a] > logprobs[b] || (logprobs[a] == logprobs[b] && a < b);
  };
  std::partial_sort(ids.begin(), ids.begin() + num_top, ids.end(), likelier);
  TokenLogprobs result{token, logprobs[token], {}};
  for (int64_t i = 0; i < num_top; ++i) result.top.emplace_back(ids[i], logprobs[ids[i]]);
  return result;
}

}  // namespace

std::vector<TokenLogprobs> token_logprobs(const at::Tensor& logits_nV, std::span<const int32_t> tokens,
                                          int64_t num_top) {
  const at::Tensor logprobs_nV = at::log_softmax(logits_nV, -1, at::kFloat).contiguous();
  const int64_t vocab_size = logits_nV.size(1);
  std::vector<TokenLogprobs> result;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const float* row = logprobs_nV.const_data_ptr<float>() + static_cast<int64_t>(i) * vocab_size;
    result.push_back(of_row(row, vocab_size, tokens[i], num_top));
  }
  return result;
}

ModelRunner::ModelRunner(Decoder& decoder, Transport& tokens, const Layout& layout)
    : decoder_(decoder), tokens_(tokens), ep_(layout.ep), replicated_(num_caches(layout) == 1) {}

int64_t ModelRunner::num_caches(const Layout& layout) {
  if (layout.tp == 1) return layout.world();
  if (layout.world() > layout.tp) {
    fail("layout {}: an engine runs either tp ranks or ep * dp ranks", layout.to_string());
  }
  return 1;
}

void ModelRunner::follow(const StepMessage& message) {
  for (const uint64_t id : message.plan.removed) sequences_.erase(id);
  for (const SequenceState& state : message.admitted) {
    Sequence& sequence = sequences_[state.id];
    sequence.state = state;
    if (state.cache != tokens_.rank()) continue;
    const auto drawn = state.tokens.begin() + state.num_prompt;
    sequence.sampler.emplace(state.sampling, state.stream, std::vector(state.tokens.begin(), drawn),
                             std::vector(drawn, state.tokens.end()));
  }
  for (const ScheduledChunk& chunk : message.plan.chunks) {
    Sequence& sequence = sequences_.at(chunk.id);
    sequence.pages.insert(sequence.pages.end(), chunk.new_pages.begin(), chunk.new_pages.end());
    FARSKIP_CHECK(chunk.end() <= std::ssize(sequence.state.tokens), "a step runs tokens that nobody has drawn");
  }
}

// What every rank must know of the others' tokens follows from the plan.
DecoderStep ModelRunner::step_of(const StepPlan& plan) const {
  std::vector<int64_t> num_tokens(tokens_.size());
  int64_t longest = 0;
  for (const ScheduledChunk& chunk : plan.chunks) {
    num_tokens[chunk.cache] += chunk.num_tokens;
    longest = std::max(longest, chunk.num_tokens);
  }
  DecoderStep step;
  step.logits = !replicated_ || tokens_.rank() == 0;
  step.bucket = StepBucket::of(*std::max_element(num_tokens.begin(), num_tokens.end()), longest);
  const auto group = num_tokens.begin() + tokens_.rank() / ep_ * ep_;
  if (!replicated_) step.rank_tokens.assign(group, group + ep_);
  return step;
}

at::Tensor ModelRunner::logits_of(const StepPlan& plan) {
  std::vector<PagedInput> inputs;
  for (const ScheduledChunk& chunk : plan.chunks) {
    if (!runs(chunk)) continue;
    const Sequence& sequence = sequences_.at(chunk.id);
    const std::span<const int32_t> tokens = sequence.state.tokens;
    inputs.push_back(
        {&sequence.pages, chunk.position, tokens.subspan(chunk.position, chunk.num_tokens), chunk.num_logits()});
  }
  return decoder_.run(inputs, step_of(plan));
}

ChunkResult ModelRunner::draw(const ScheduledChunk& chunk, const at::Tensor& logits_nV) {
  Sequence& sequence = sequences_.at(chunk.id);
  const int64_t num_top = num_top_logprobs(sequence);
  ChunkResult result;
  if (chunk.num_prompt_logits > 0) {
    const std::span<const int32_t> tokens = sequence.state.tokens;
    result.of_prompt = token_logprobs(logits_nV.narrow(0, 0, chunk.num_prompt_logits),
                                      tokens.subspan(chunk.position + 1, chunk.num_prompt_logits), num_top);
  }
  if (!chunk.samples) return result;
  const at::Tensor last_V = logits_nV[logits_nV.size(0) - 1];
  try {
    result.token = sequence.sampler->next(last_V);
  } catch (const Error& error) {
    result.error = error.what();
    return result;
  }
  if (sequence.state.num_logprobs >= 0) {
    result.logprobs = token_logprobs(last_V.unsqueeze(0), {{result.token}}, num_top)[0];
  }
  return result;
}

int64_t ModelRunner::num_top_logprobs(const Sequence& sequence) const {
  return std::clamp<int64_t>(sequence.state.num_logprobs, 0, decoder_.vocab_size());
}

// Of each own chunk the token that it drew, and where rank 0 did not draw it, what else rank 0 must know. How many
// numbers each rank gives follows from the plan.
void ModelRunner::exchange(const StepPlan& plan, std::vector<ChunkResult>& results) {
  if (tokens_.size() == 1) return;
  std::vector<int64_t> own, num_numbers(tokens_.size());
  const auto judged = [&](const ScheduledChunk& chunk) {
    const bool drawn = chunk.samples && sequences_.at(chunk.id).state.num_logprobs >= 0;
    return chunk.cache == 0 ? int64_t{0} : chunk.num_prompt_logits + (drawn ? 1 : 0);
  };
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const ScheduledChunk& chunk = plan.chunks[i];
    const int64_t num_top = num_top_logprobs(sequences_.at(chunk.id));
    const int64_t size = (chunk.samples ? 1 : 0) + judged(chunk) * packed_size(num_top);
    num_numbers[chunk.cache] += size;
    if (!owns(chunk)) continue;
    const size_t end = own.size() + size;
    if (chunk.samples) own.push_back(results[i].token);
    if (judged(chunk) > 0) {
      for (const TokenLogprobs& value : results[i].of_prompt) pack(value, own);
      if (results[i].logprobs) pack(*results[i].logprobs, own);
    }
    own.resize(end);  // where drawing failed there are no logprobs
  }
  const at::Tensor all = tokens_.all_gather(at::tensor(own, at::kLong), "tokens", num_numbers).await().contiguous();
  std::vector<int64_t> at_rank(tokens_.size());
  std::exclusive_scan(num_numbers.begin(), num_numbers.end(), at_rank.begin(), int64_t{0});
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const ScheduledChunk& chunk = plan.chunks[i];
    const int64_t num_top = num_top_logprobs(sequences_.at(chunk.id));
    const int64_t* numbers = all.const_data_ptr<int64_t>() + at_rank[chunk.cache];
    at_rank[chunk.cache] += (chunk.samples ? 1 : 0) + judged(chunk) * packed_size(num_top);
    if (owns(chunk)) continue;
    ChunkResult& result = results[i];
    if (chunk.samples) result.token = static_cast<int32_t>(*numbers++);
    if (chunk.samples && result.token < 0) result.error = fmt::format("rank {} could draw no token", chunk.cache);
    for (int64_t n = 0; n < judged(chunk); ++n, numbers += packed_size(num_top)) {
      if (n < chunk.num_prompt_logits) {
        result.of_prompt.push_back(unpack(numbers, num_top));
      } else if (result.token >= 0) {
        result.logprobs = unpack(numbers, num_top);
      }
    }
  }
}

std::vector<ChunkResult> ModelRunner::run(const StepMessage& message) {
  follow(message);
  const auto& chunks = message.plan.chunks;
  std::vector<ChunkResult> results(chunks.size());
  const at::Tensor logits = logits_of(message.plan);
  int64_t row = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (!owns(chunks[i])) continue;
    const int64_t num_rows = chunks[i].num_logits();
    if (num_rows > 0) results[i] = draw(chunks[i], logits.narrow(0, row, num_rows));
    row += num_rows;
  }
  exchange(message.plan, results);
  for (size_t i = 0; i < chunks.size(); ++i) {
    // A sequence whose drawing failed may be in the next plan already; what it gives there is not looked at.
    if (chunks[i].samples) sequences_.at(chunks[i].id).state.tokens.push_back(std::max(0, results[i].token));
  }
  return results;
}

}  // namespace farskip
