#pragma once
// Where a training step spends its time: the share of each stage, and how much of the machine's matrix peak its
// products reach.

#include <ATen/core/ScalarType.h>

#include <string>
#include <vector>

#include "config/model_config.h"
#include "layer/stage_graph.h"
#include "sim/cost_model.h"
#include "trace/table.h"

namespace farskip {

/// FLOPs of one token's matrix products in a stage, all layers together (0: none), at sequences of `seq_length`. A
/// backward stage counts the products that give gradients of inputs (attention's core: twice its forward), a wgrad
/// stage those that give gradients of weights. Recomputation is work that counts for nothing.
double stage_flops(const ModelConfig& model, Stage stage, Pass pass, int64_t seq_length);

/// FLOP/s of a plain product of square matrices of this dtype on all of this process's threads, the best of several.
double matrix_peak(at::ScalarType dtype, int64_t size = 1024);

struct StepProfile {
  struct Row {
    std::string name;  ///< "forward.experts"; "elsewhere": between stages
    double ms = 0;     ///< a step, all layers
    double flops = 0;  ///< of the step's products
  };
  std::vector<Row> rows;  ///< longest first
  double step_ms = 0;
  double peak = 0;   ///< FLOP/s
  std::string unit;  ///< what the peak was measured with

  double flops() const;
  /// Part of the peak that the whole step reaches.
  double utilization() const { return flops() / (step_ms / 1e3) / peak; }
  /// Stage, ms, share, GFLOP/s, part of the peak. Stages below half a percent are added up in one row.
  Table table() const;
};

/// From measured costs of a graph's nodes: `tokens` is what one rank trains on in a step, `step_ms` a whole step.
StepProfile profile_step(const StageGraph& graph, const CostTable& costs, const ModelConfig& model, int64_t seq_length,
                         double tokens, double step_ms, at::ScalarType dtype);

}  // namespace farskip
