#include "infer/batch_run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/philox.h"

namespace farskip {

std::vector<std::vector<int32_t>> random_prompts(int64_t num, int64_t length, int64_t vocab_size, uint64_t seed) {
  std::vector<std::vector<int32_t>> prompts(num, std::vector<int32_t>(length));
  for (int64_t i = 0; i < num; ++i) {
    Philox random(seed, i);
    for (int32_t& token : prompts[i]) token = static_cast<int32_t>(random.below(vocab_size));
  }
  return prompts;
}

std::vector<int64_t> sequences_of_rank(int64_t num, const Layout& layout, int rank) {
  const int together = layout.tp, num_shares = layout.world() / together;
  std::vector<int64_t> own;
  for (int64_t i = 0; i < num; ++i) {
    if (i % num_shares == rank / together) own.push_back(i);
  }
  return own;
}

at::Tensor ForcedExperts::ids(const std::vector<int64_t>& tokens) const {
  const auto num_tokens = std::ssize(tokens);
  at::Tensor ids = at::empty({num_tokens, top_k}, at::kLong);
  int64_t* id = ids.data_ptr<int64_t>();
  for (const int64_t token : tokens) {
    const auto before = static_cast<double>(token);
    const bool first = std::floor((before + 1) * share) > std::floor(before * share);
    for (int64_t k = 0; k < top_k; ++k) *id++ = (token * top_k + k) % (first ? first_experts : num_experts);
  }
  return ids;
}

BatchRun::BatchRun(const InferenceModel& model, const Communicators& communicators, const BatchRunOptions& options)
    : options_(options), own_(sequences_of_rank(options.num_sequences, model.layout(), model.rank())) {
  const int group = model.layout().expert_group(), first = model.rank() / group * group;
  for (int r = first; r < first + group; ++r)
    num_sequences_of_ranks_.push_back(std::ssize(sequences_of_rank(options.num_sequences, model.layout(), r)));
  const int64_t pages = pages_of(options.num_tokens) * std::max<int64_t>(1, std::ssize(own_));
  decoder_ = std::make_unique<Decoder>(model, communicators,
                                       DecoderOptions{.max_positions = options.num_tokens,
                                                      .cache_positions = pages * page_positions,
                                                      .num_microbatches = options.num_microbatches,
                                                      .record_spans = options.record_spans});
}

void BatchRun::start(const std::vector<std::vector<int32_t>>& prompts) {
  for (const DecoderInput& input : inputs_) decoder_->remove(input.sequence);
  inputs_.clear();
  num_steps_ = 0;
  tokens_a_sequence_ = std::ssize(prompts.front());
  for (const int64_t i : own_) inputs_.push_back({decoder_->add(), prompts.at(i)});
}

/// By the number of a token among those of all sequences in this step and those before.
at::Tensor BatchRun::forced_ids() const {
  std::vector<int64_t> tokens;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const int64_t num = std::ssize(inputs_[i].tokens);
    for (int64_t t = 0; t < num; ++t) tokens.push_back(num_steps_ * options_.num_sequences + own_[i] * num + t);
  }
  return options_.experts->ids(tokens);
}

at::Tensor BatchRun::step() {
  DecoderStep step;
  if (options_.experts) step.experts = forced_ids();
  for (const int64_t num : num_sequences_of_ranks_) step.rank_tokens.push_back(num * tokens_a_sequence_);
  tokens_a_sequence_ = 1;
  at::Tensor logits = decoder_->step(inputs_, step);
  ++num_steps_;
  const at::Tensor likeliest = logits.argmax(-1);
  for (size_t i = 0; i < inputs_.size(); ++i)
    inputs_[i].tokens = {static_cast<int32_t>(likeliest.const_data_ptr<int64_t>()[i])};
  return logits;
}

std::vector<int32_t> BatchRun::tokens() const {
  std::vector<int32_t> tokens;
  for (const DecoderInput& input : inputs_) tokens.push_back(input.tokens.back());
  return tokens;
}

}  // namespace farskip
