#pragma once
// farskip bench train: how much communication a schedule hides, by the definitions of docs/numerics. Three kinds of
// step of the same work, interleaved: blocking (declaration order, every collective awaited at once), overlapped (the
// schedule) and compute (the same order and data movement, link time zero).

#include <nlohmann/json.hpp>

#include "exec/measure.h"
#include "train/launch.h"
#include "train/session.h"
#include "train/step_profile.h"

namespace farskip {

struct BenchOptions {
  TrainConfig config;  ///< resolved; schedule: the overlapped one
  BenchLink link;
  int num_rounds = 100;
  int num_check_steps = 2;
  SampleSource samples;  ///< null: synthetic tokens
};

struct BenchResult {
  std::string schedule, link;
  std::vector<std::pair<std::string, double>> candidates;  ///< orders the search tried, simulated ms a step
  LinkSpec link_spec;
  uint64_t schedule_hash = 0;
  Estimate t_blocking_ms, t_overlapped_ms, t_compute_ms;
  Estimate saved;                                          ///< (blocking - overlapped) / (blocking - compute)
  Estimate efficiency;                                     ///< bound / overlapped
  Estimate speedup;                                        ///< blocking / overlapped
  Estimate hidden_forward, hidden_backward, hidden_total;  ///< of the hideable collective time; medians over the steps
  double t_comm_ms = 0;                                    ///< link time of all collectives of a step
  double share = 0;                                        ///< of a blocking step: t_comm / t_blocking
  double bound_ms = 0;  ///< the best the simulation finds with the stage costs of the compute steps, never below
                        ///< max(compute, communication)
  double simulated_overlapped_ms = 0, simulated_blocking_ms = 0;
  double skew_ms =
      0;  ///< of an overlapped step, waiting for a rank that had not launched yet: imbalance, no communication
  double waited_blocking_ms = 0, waited_overlapped_ms = 0;  ///< the compute lane stood still for a collective, per step
  double waiting_hidden() const;                            ///< 1 - overlapped / blocking
  double cpu_ms = 0;                                        ///< CPU time of a rank in an overlapped step, and
  double transport_cpu_ms = 0;  ///< the part of it outside the thread that computes: what the transport costs
  std::map<std::string, double> stage_ms;  ///< "fwd.experts": compute time of all layers, per rank and step
  StepProfile profile;                     ///< the same of a compute step, with shares and rates
  OverlapSummary overlap, simulated_overlap;
  int num_rounds = 0;
  Timeline measured, simulated;

  nlohmann::json to_json() const;
  std::string text() const;
};

/// Runs the benchmark on this rank; called by all. First checks, on two copies of the model, that blocking and
/// overlapped steps leave the same bits in every weight; throws Error otherwise.
BenchResult bench_train(const BenchOptions& options, RankContext& context);

}  // namespace farskip
