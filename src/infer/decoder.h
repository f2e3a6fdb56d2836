#pragma once
// Inference step by step: any number of sequences, each with any number of new tokens, over a cache of what they have
// seen. One rank.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "exec/executor.h"
#include "infer/inference_model.h"
#include "nn/kv_cache.h"

namespace farskip {

struct DecoderOptions {
  int64_t max_positions = 0;    ///< of a sequence; 0: what the model was made for
  int64_t cache_positions = 0;  ///< of all sequences, rounded up to pages each; 0: max_positions
};

/// New tokens of a sequence.
struct DecoderInput {
  int64_t sequence;
  std::vector<int32_t> tokens;  ///< at least one
};

/// New tokens of a sequence whose pages the caller keeps.
struct PagedInput {
  const nn::PageTable* pages;       ///< enough for the new positions; below num_pages()
  int64_t position;                 ///< of the first new token: so many are in the cache
  std::span<const int32_t> tokens;  ///< at least one
  int64_t num_logits;               ///< of so many last tokens
};

class Decoder {
 public:
  /// `model` and `communicators` (of one rank) must outlive it.
  Decoder(const InferenceModel& model, const Communicators& communicators, const DecoderOptions& options);
  ~Decoder();

  /// A new sequence without positions; its number.
  int64_t add();
  /// Forgets positions from `length` on.
  void truncate(int64_t sequence, int64_t length);
  void remove(int64_t sequence);
  int64_t length(int64_t sequence) const { return sequences_.at(sequence).length; }
  int64_t max_positions() const { return max_positions_; }

  /// Runs the new tokens: the logits that follow the last of each sequence, [inputs, V] fp32, or with `every_token`
  /// those that follow each token, [tokens, V]. Each sequence occurs once. Throws Error for ids outside the vocabulary,
  /// for a sequence that grows past max_positions, and where the cache is full.
  at::Tensor step(const std::vector<DecoderInput>& inputs, bool every_token = false);

  /// The same for sequences of the caller's, which uses all pages itself then: the wanted logits, [sum of num_logits,
  /// V] fp32.
  at::Tensor run(const std::vector<PagedInput>& inputs);
  int64_t num_pages() const { return num_pages_; }
  int64_t vocab_size() const { return model_.config().vocab_size; }

  /// step() of one sequence, in parts of prompt_chunk tokens so that a long prompt's activations are bounded: the
  /// logits [V] that follow the last.
  at::Tensor read(int64_t sequence, std::span<const int32_t> tokens);
  static constexpr int64_t prompt_chunk = 2048;

 private:
  struct Sequence {
    nn::PageTable pages;
    int64_t length = 0;
  };
  void reserve(Sequence& sequence, int64_t length);

  const InferenceModel& model_;
  int64_t max_positions_, num_pages_;
  StageMath math_;
  StageGraph graph_;
  at::Tensor logits_;
  std::unique_ptr<Executor> executor_;
  nn::KvCache cache_;
  std::vector<int32_t> free_pages_;
  std::map<int64_t, Sequence> sequences_;
  int64_t next_sequence_ = 0;
};

/// Calls `body` once with a decoder on this process alone.
void with_decoder(const InferenceModel& model, const DecoderOptions& options,
                  const std::function<void(Decoder&)>& body);

}  // namespace farskip
