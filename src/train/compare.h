#pragma once
// farskip compare: one model, trained once per connectivity over an emulated link, with what overlap brought to each.

#include "train/bench.h"
#include "train/trainer.h"

namespace farskip {

struct CompareOptions {
  TrainConfig config;                       ///< resolved; its connectivity is replaced
  std::vector<std::string> connectivities;  ///< spellings
  BenchLink link;                           ///< calibrated on the first connectivity, then the same for all
  int num_rounds = 30;                      ///< steps of each kind in the benchmark
  std::string output;                       ///< models are saved to OUTPUT/CONNECTIVITY
};

struct CompareResult {
  struct Run {
    std::string connectivity;
    BenchResult bench;
    TrainSummary train;
  };
  std::vector<Run> runs;
  /// Of a trigram model of tokens on the same validation tokens, nats per token; 0: no validation.
  double trigram_loss = 0;
  /// Tokens that the trigram model counts, and that each run was trained on (some twice where these are more).
  int64_t trigram_tokens = 0, trained_tokens = 0;
  /// Of the text of these tokens, by which losses of other vocabularies compare (nats per byte); 0: tokens are bytes.
  double bytes_per_token = 0;
  std::string trigram_name() const;  ///< "byte trigram" or "token trigram"
  Table table() const;
};

/// Runs on this rank; called by all.
CompareResult compare(const CompareOptions& options, const TrainData& data, RankContext& context);

/// One page, nothing from the network: loss curves, overlap per collective, timelines, expert load.
void write_compare_report(const CompareOptions& options, const CompareResult& result, const std::string& path);

}  // namespace farskip
