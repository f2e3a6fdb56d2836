#pragma once
// What each rank does with a plan: it keeps the sequences' tokens and pages as plans tell, runs the model over the new
// positions, and draws the tokens of the sequences it owns. Every rank learns what was drawn.

#include <map>
#include <optional>

#include "infer/decoder.h"
#include "infer/sampler.h"
#include "infer/step_message.h"

namespace farskip {

/// What a step brought to one chunk. Rank 0 has all of it, the others the tokens.
struct ChunkResult {
  int32_t token = -1;                     ///< -1: none was to be drawn, or drawing failed
  std::string error;                      ///< why it failed
  std::optional<TokenLogprobs> logprobs;  ///< of `token`
  std::vector<TokenLogprobs> of_prompt;   ///< of the tokens at positions chunk.position + 1 and on
};

class ModelRunner {
 public:
  /// `tokens` joins all ranks of the layout. Both must outlive it.
  ModelRunner(Decoder& decoder, Transport& tokens, const Layout& layout);

  /// Ranks that hold sequences of their own; 1: all ranks run all sequences, and rank 0 draws.
  static int64_t num_caches(const Layout& layout);

  /// What a plan says of sequences, where it runs nothing.
  void follow(const StepMessage& message);
  /// Carries a step out, on all ranks at once: one result per chunk.
  std::vector<ChunkResult> run(const StepMessage& message);

 private:
  struct Sequence {
    SequenceState state;
    nn::PageTable pages;
    std::optional<Sampler> sampler;  ///< of own sequences
  };
  bool owns(const ScheduledChunk& chunk) const { return chunk.cache == tokens_.rank(); }
  bool runs(const ScheduledChunk& chunk) const { return replicated_ || owns(chunk); }
  at::Tensor logits_of(const StepPlan& plan);
  DecoderStep step_of(const StepPlan& plan) const;
  ChunkResult draw(const ScheduledChunk& chunk, const at::Tensor& logits_nV);
  void exchange(const StepPlan& plan, std::vector<ChunkResult>& results);
  int64_t num_top_logprobs(const Sequence& sequence) const;

  Decoder& decoder_;
  Transport& tokens_;
  int ep_;
  bool replicated_;
  std::map<uint64_t, Sequence> sequences_;
};

/// What log-softmax of logits [n, V] says of a token each, with the `num_top` likeliest, the lower id first among
/// equals.
std::vector<TokenLogprobs> token_logprobs(const at::Tensor& logits, std::span<const int32_t> tokens, int64_t num_top);

}  // namespace farskip
