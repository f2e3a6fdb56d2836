#pragma once
// Inference step by step: any number of sequences, each with any number of new tokens, over a cache of what they have
// seen. On one rank or several: with tensor parallelism all ranks have all sequences (and their own heads of them),
// with expert parallelism each rank has its own.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "exec/executor.h"
#include "infer/inference_model.h"
#include "infer/step_form.h"
#include "nn/kv_cache.h"
#include "nn/kv_pages.h"

namespace farskip {

/// Of a page of the cache.
inline constexpr int64_t page_positions = nn::KvPages::page_positions;
/// Pages that hold so many positions of a sequence.
constexpr int64_t pages_of(int64_t positions) { return (positions + page_positions - 1) / page_positions; }

struct DecoderOptions {
  int64_t max_positions = 0;    ///< of a sequence; 0: what the model was made for
  int64_t cache_positions = 0;  ///< of all sequences, rounded up to pages each; 0: max_positions
  int num_microbatches = 1;     ///< into which the tokens of a step are divided (two-batch overlap: 2)
  bool record_spans = false;    ///< for last()
  /// Instead of num_microbatches and set_schedule(): a form for each bucket of steps.
  ChooseForm form = {};
  /// Called with what each MoE layer's router chose for this rank's tokens of a microbatch, [tokens, K] int64.
  std::function<void(int64_t layer, const at::Tensor& ids)> on_experts = {};
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

struct DecoderStep {
  bool every_token = false;  ///< logits of each token, not only of each sequence's last
  bool logits = true;        ///< false: this rank needs none (another one samples)
  /// Tokens of each rank in this step, where each has its own sequences (expert parallelism without exchange=a2a);
  /// empty: ranks ask each other first.
  std::vector<int64_t> rank_tokens = {};
  /// [tokens, K] int64: the experts that each token visits in every MoE layer; undefined: routers choose. For
  /// benchmarks.
  at::Tensor experts = {};
  /// The same on all ranks; absent: that of this rank's tokens, which is enough where all ranks have the same.
  std::optional<StepBucket> bucket = {};
};

class Decoder {
 public:
  /// `model` and `communicators` (of the ranks of its layout) must outlive it. All ranks make one.
  Decoder(const InferenceModel& model, const Communicators& communicators, const DecoderOptions& options);
  ~Decoder();

  /// A new sequence without positions; its number.
  int64_t add();
  /// Forgets positions from `length` on.
  void truncate(int64_t sequence, int64_t length);
  void remove(int64_t sequence);
  int64_t length(int64_t sequence) const { return sequences_.at(sequence).length; }
  int64_t max_positions() const { return max_positions_; }

  /// Runs the new tokens: the logits that follow the last of each sequence, [inputs, V] fp32, or with every_token those
  /// that follow each token, [tokens, V]. Each sequence occurs once. Called by all ranks of an expert communicator:
  /// with the same inputs where all have all sequences, else with their own, which may be none. Throws Error for ids
  /// outside the vocabulary, for a sequence that grows past max_positions, and where the cache is full.
  at::Tensor step(const std::vector<DecoderInput>& inputs, const DecoderStep& options = {});

  /// The same for sequences whose pages the caller keeps, all of them then: the wanted logits in the order of tokens,
  /// [sum of num_logits, V] fp32. `options.every_token` is not looked at.
  at::Tensor run(const std::vector<PagedInput>& inputs, const DecoderStep& options = {});
  int64_t num_pages() const { return num_pages_; }
  int64_t vocab_size() const { return model_.config().vocab_size; }

  /// step() of one sequence, in parts of prompt_chunk tokens so that a long prompt's activations are bounded: the
  /// logits [V] that follow the last.
  at::Tensor read(int64_t sequence, std::span<const int32_t> tokens);
  static constexpr int64_t prompt_chunk = 2048;

  /// The order of stages from the next step on; a schedule of graph(). At first the reference. REQUIRES: no form was
  /// given.
  void set_schedule(const Schedule& schedule);
  const StageGraph& graph() const { return only_->graph; }
  int64_t num_prepared() const { return static_cast<int64_t>(prepared_.size()); }  ///< buckets met so far
  const StageMath& math() const { return math_; }
  /// Timeline and collectives of the last step.
  const StepResult& last() const { return last_; }

 private:
  struct Sequence {
    nn::PageTable pages;
    int64_t length = 0;
  };
  struct Part;
  struct Prepared {
    StageGraph graph;
    std::unique_ptr<Executor> executor;
  };
  void reserve(Sequence& sequence, int64_t length);
  Prepared& prepared_for(const std::vector<PagedInput>& inputs, const DecoderStep& options);
  std::unique_ptr<Prepared> prepare(const StepForm& form);
  void set_executor(Prepared& prepared, const Schedule& schedule);
  static std::vector<Part> divide(const std::vector<PagedInput>& inputs, int64_t num_parts);
  /// Per part; empty where nobody needs to know.
  std::vector<std::vector<int64_t>> tokens_of_ranks(int64_t own, const DecoderStep& options, int64_t num_parts) const;

  const InferenceModel& model_;
  const Communicators& communicators_;
  int64_t max_positions_, num_pages_;
  bool record_spans_;
  ChooseForm form_;
  std::function<void(int64_t, const at::Tensor&)> on_experts_;
  StageMath math_;
  std::vector<at::Tensor> logits_;  ///< per microbatch
  std::unique_ptr<Prepared> only_;  ///< without form_
  std::map<StepBucket, std::unique_ptr<Prepared>> prepared_;
  StepResult last_;
  nn::KvCache cache_;
  std::vector<int32_t> free_pages_;
  std::map<int64_t, Sequence> sequences_;
  int64_t next_sequence_ = 0;
};

/// Calls `body` once with a decoder on this process alone, on the calling thread, which is better the one that loaded
/// the model: OpenMP keeps a team of workers for each thread that has divided work, and once there are more workers
/// than cores they sleep between regions instead of spinning.
void with_decoder(const InferenceModel& model, const DecoderOptions& options,
                  const std::function<void(Decoder&)>& body);

}  // namespace farskip
