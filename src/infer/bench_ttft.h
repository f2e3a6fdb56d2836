#pragma once
// farskip bench ttft: time to first token and time per output token of one batch, by connectivity and order of
// execution. AMD's protocol: one batch of random prompts is read in one step (the first tokens are sampled at its end),
// then one token of each sequence a step. Definitions are those of docs/numerics.md, "How overlap is measured".

#include <nlohmann/json.hpp>

#include "exec/measure.h"
#include "infer/batch_run.h"
#include "infer/bench_modes.h"
#include "infer/inference_model.h"
#include "trace/report.h"

namespace farskip {

/// Where tokens go in the timed runs.
struct BenchRouting {
  enum class Kind { balanced, real, skewed };
  Kind kind = Kind::balanced;
  double skew = 1;  ///< rows of the busiest rank over the mean
  /// balanced: every expert gets as many rows | real: routers choose | skewed=S, 1 <= S <= ranks that share the experts
  static BenchRouting parse(const std::string& text);
  std::string to_string() const;
  /// The choice of these runs; none where routers choose. Throws Error where the layout cannot be skewed so.
  std::optional<ForcedExperts> experts(const ModelConfig& model, const Layout& layout) const;
};

struct TtftOptions {
  std::string model;                         ///< a preset or a config.json: random weights; or a checkpoint
  std::optional<at::ScalarType> dtype = {};  ///< see InferenceModelOptions
  Layout layout;
  int64_t batch = 4;    ///< sequences, over all ranks
  int64_t input = 128;  ///< tokens of each prompt
  int64_t output = 16;  ///< tokens made for each, the first one by the prefill
  BenchLink link;       ///< share: of the blocking FarSkip prefill (else of the first mode's connectivity)
  std::vector<BenchMode> modes;
  BenchRouting routing;
  int num_rounds = 20;
  int num_calibration_steps = 12;
  bool check_one_rank = true;  ///< compare with a whole model on one rank
  uint64_t seed = 1;           ///< of weights and prompts

  BatchRunOptions run_options(const ModelConfig& model, int num_microbatches) const;
};

/// One phase of a mode: the prefill, or a decode step. Times in ms.
struct PhaseFigures {
  std::string schedule;
  uint64_t schedule_hash = 0;
  Estimate time;                              ///< to the first token; per output token
  Estimate compute;                           ///< the same order, link time zero; absent (0) where no link is emulated
  double comm = 0;                            ///< link time of all collectives
  std::vector<std::string> unhideable_names;  ///< collectives that no order can hide
  double unhideable = 0;                      ///< of those that no order can hide
  double share = 0;                           ///< comm / time of the blocking mode
  Estimate hidden;                            ///< of the hideable communication of a step
  OverlapSummary overlap;                     ///< over all rounds
  OverlapSummary hideable;
  int num_steps = 0;  ///< that `overlap` sums up
  double bound = 0;   ///< the best order that simulation finds, never below computing or link alone
  Estimate efficiency;
  Estimate speedup_standard;  ///< over the blocking standard mode; num_samples = 0: there is none
  Estimate speedup_blocking;  ///< over the blocking mode of the same connectivity; likewise
  Estimate saved_standard;    ///< paired differences: that mode's time less this one's
  Estimate saved_blocking;
  double ideal = 0;                   ///< speed-up over blocking with all communication hidden: 1 / (1 - share)
  double possible = 0;                ///< with all but what no order can hide
  double waited = 0;                  ///< the compute lane stood still for collectives, skew included
  double skew = 0;                    ///< of it, for a rank that had not launched yet
  double cpu = 0, transport_cpu = 0;  ///< processor time of a rank; of it in the transport's threads
  Timeline measured, simulated;
};

struct ModeFigures {
  BenchMode mode;
  PhaseFigures prefill, decode;
};

struct TtftResult {
  TtftOptions options;
  std::string machine;  ///< "2 ranks with 1 thread each, float"
  LinkSpec link;
  std::string share_of;              ///< the connectivity whose blocking prefill the share belongs to
  std::vector<std::string> checked;  ///< what was compared before anything was timed, one sentence each
  std::vector<ModeFigures> modes;

  nlohmann::json to_json() const;
  std::string text() const;
  void add_to(HtmlReport& report) const;
  /// A row a mode.
  Table table() const;
  /// Of one mode: communication per collective, in total, hideable, exposed.
  Table collectives(const PhaseFigures& phase) const;
  /// Sentences about what cannot be hidden, and why.
  std::vector<std::string> remarks() const;
};

/// Called by all ranks; every rank returns figures, of which rank 0's timelines are its own. First checks the answers:
/// within a connectivity the same bits in every order, two batches and one rank within a tolerance; throws Error
/// otherwise.
TtftResult bench_ttft(const TtftOptions& options, World& world, Link& link);

}  // namespace farskip
