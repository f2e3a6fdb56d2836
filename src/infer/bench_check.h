#pragma once
// The answer before the time: what the modes of a benchmark have to agree on.

#include <string>
#include <vector>

#include "infer/bench_ttft.h"

namespace farskip {

/// Logits of a batch's prompt and of a few tokens more, greedily: [steps, own sequences, V], and the tokens.
struct BatchAnswer {
  at::Tensor logits;
  std::vector<std::vector<int32_t>> tokens;  ///< per step
};

/// Runs the batch; the schedules (of this run's graph) serve the prompt and all other steps.
BatchAnswer answer_of(BatchRun& run, const std::vector<std::vector<int32_t>>& prompts, int num_steps,
                      const Schedule& prefill, const Schedule& decode);

/// Throws Error where logits differ in a bit. `what` begins the message.
void check_same_bits(const BatchAnswer& expected, const BatchAnswer& answer, const std::string& what);

/// Largest difference over the largest logit, over all ranks of `world`; infinite where tokens differ.
double answer_distance(const BatchAnswer& expected, const BatchAnswer& answer, bool tokens, Transport& world);

/// Compares, for each connectivity of options.modes, two batches and (options.check_one_rank) a whole model on one rank
/// with one batch on all ranks: logits within a tolerance and, in fp32, the same tokens. Where routers choose and two
/// of a token's experts are nearly as good, rounding decides between them and logits part, so up to three sets of
/// prompts are tried. Returns what was compared, a sentence each; throws Error where none agree. `model` is this rank's
/// share. Called by all ranks.
std::vector<std::string> check_across(const TtftOptions& options, const InferenceModel& model,
                                      const Communicators& communicators);

/// The model of options on this rank: random weights for a preset or a config.json alone, else the checkpoint's.
InferenceModel load_bench_model(const TtftOptions& options, const Layout& layout, int rank);

inline constexpr int num_checked_steps = 4;

}  // namespace farskip
