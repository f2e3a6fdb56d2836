#pragma once
// One batch through one decoder: all prompts in one step, then the likeliest token of each sequence a step. What
// benchmarks time and what they check their answers with.

#include <memory>
#include <optional>
#include <vector>

#include "infer/decoder.h"

namespace farskip {

/// Prompts of random tokens, [num, length]: a function of the seed and the prompt's number.
std::vector<std::vector<int32_t>> random_prompts(int64_t num, int64_t length, int64_t vocab_size, uint64_t seed);

/// Of `num` sequences the numbers of those that rank `rank` has: all with tensor parallelism, else every n-th.
std::vector<int64_t> sequences_of_rank(int64_t num, const Layout& layout, int rank);

/// Experts chosen by number instead of by routers, so that loads are what a benchmark wants: token i visits experts i*K
/// .. i*K + K-1 modulo E. Of every 1/share tokens one visits the first experts alone, in the same way.
struct ForcedExperts {
  int64_t num_experts = 0, top_k = 0;  ///< E, K
  double share = 0;
  int64_t first_experts = 0;  ///< at least K where share > 0
  /// [tokens, K] int64.
  at::Tensor ids(const std::vector<int64_t>& tokens) const;
};

struct BatchRunOptions {
  int64_t num_sequences = 1;  ///< of all ranks
  int64_t num_tokens = 1;     ///< of each sequence at the end
  int num_microbatches = 1;
  bool record_spans = true;
  std::optional<ForcedExperts> experts = {};  ///< absent: routers choose
};

class BatchRun {
 public:
  /// `model` and `communicators` must outlive it.
  BatchRun(const InferenceModel& model, const Communicators& communicators, const BatchRunOptions& options);

  /// Forgets what was read; the next step reads these prompts, of one length (of all ranks: it takes its own).
  void start(const std::vector<std::vector<int32_t>>& prompts);
  /// One step and its sampled tokens. Returns the logits of this rank's sequences, [n, V] fp32.
  at::Tensor step();
  /// The tokens sampled by the last step, one of each own sequence.
  std::vector<int32_t> tokens() const;

  Decoder& decoder() { return *decoder_; }
  const std::vector<int64_t>& own() const { return own_; }  ///< numbers of this rank's sequences

 private:
  at::Tensor forced_ids() const;

  BatchRunOptions options_;
  std::vector<int64_t> own_;
  std::vector<int64_t> num_sequences_of_ranks_;  ///< of this rank's expert communicator
  std::unique_ptr<Decoder> decoder_;
  std::vector<DecoderInput> inputs_;
  int64_t num_steps_ = 0;          ///< since start()
  int64_t tokens_a_sequence_ = 1;  ///< in the next step
};

}  // namespace farskip
