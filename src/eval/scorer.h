#pragma once
// Sequences judged by a model, many in one step.

#include <ATen/core/Tensor.h>

#include <map>
#include <span>
#include <vector>

#include "eval/task.h"
#include "infer/decoder.h"

namespace farskip {

class Scorer {
 public:
  /// Room for batches of up to `num_pages` pages (pages_of) and `max_positions` tokens a sequence. All ranks make one;
  /// `model` and `communicators` must outlive it.
  Scorer(const InferenceModel& model, const Communicators& communicators, int64_t num_pages, int64_t max_positions,
         bool keep_experts = false);

  /// The logits that judge tokens[first ..] of each sequence, one below the other, [sum of num_scored, V] fp32. Called
  /// by all ranks of an expert communicator; one without sequences gives none and gets an empty tensor.
  at::Tensor logits(std::span<const ScoredSequence* const> sequences);

  /// With keep_experts: what routers chose for the inputs that these logits come from, by MoE layer, [rows, K] int64,
  /// each row in increasing order.
  const std::map<int64_t, at::Tensor>& experts() const { return experts_; }

 private:
  bool alone_;  ///< no rank waits for this one's steps
  std::map<int64_t, at::Tensor> experts_;
  Decoder decoder_;
};

/// What a model says of targets: log-softmax of logits [n, V] at one target each, in nats.
std::vector<double> target_logprobs(const at::Tensor& logits, std::span<const int32_t> targets);

/// Of two models' logits of the same tokens, row by row.
struct LogitComparison {
  std::vector<double> logprobs, against_logprobs;  ///< of the targets
  std::vector<double> kl;                          ///< KL(against || own), nats
  std::vector<bool> agree;                         ///< the likeliest token is the same; the lower id among equals
};
LogitComparison compare_logits(const at::Tensor& logits, const at::Tensor& against, std::span<const int32_t> targets);

}  // namespace farskip
