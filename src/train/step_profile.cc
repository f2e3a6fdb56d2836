#include "train/step_profile.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "config/flops.h"
#include "nn/tiles.h"
#include "transport/clock.h"

namespace farskip {

double stage_flops(const ModelConfig& model, Stage stage, Pass pass, int64_t seq_length) {
  const TokenFlops flops = model_flops(model, seq_length);
  const AttentionConfig& attention = model.attention;
  const double output =
      2.0 * static_cast<double>(model.num_layers() * attention.num_heads * attention.v_head_dim * model.hidden_size);
  double forward = 0;
  switch (stage) {
    case Stage::qkv:
      forward = flops.attention_projections - output;
      break;
    case Stage::attn_out:
      forward = output;
      break;
    case Stage::attn_core:
      return pass == Pass::forward || pass == Pass::teacher ? flops.attention_core
             : pass == Pass::backward                       ? 2 * flops.attention_core
                                                            : 0;
    case Stage::route:
      forward = flops.router;
      break;
    case Stage::shared:
      forward = flops.shared;
      break;
    case Stage::experts:
      forward = flops.routed;
      break;
    case Stage::dense:
      forward = flops.dense;
      break;
    case Stage::head:
      forward = flops.head;
      break;
    default:
      break;
  }
  return pass == Pass::step ? 0 : forward;
}

double matrix_peak(at::ScalarType dtype, int64_t size) {
  at::NoGradGuard no_grad;
  const at::Tensor a = at::rand({size, size}, at::kFloat).to(dtype), b = at::rand({size, size}, at::kFloat).to(dtype);
  double best_us = 0;
  for (int round = 0; round < 12; ++round) {  // the first ones choose a kernel and bring the clock up
    const double begin = now_us();
    nn::tiles::product(a, b.t());
    const double took = now_us() - begin;
    if (round >= 2 && (best_us == 0 || took < best_us)) best_us = took;
  }
  return 2.0 * static_cast<double>(size * size) * static_cast<double>(size) / best_us * 1e6;
}

double StepProfile::flops() const {
  double sum = 0;
  for (const Row& row : rows) sum += row.flops;
  return sum;
}

Table StepProfile::table() const {
  Table table{{"stage", "ms", "share %", "GFLOP/s", "of peak %"}, {}, ""};
  Row rest{"the others"};
  auto add = [&](const Row& row) {
    const double rate = row.flops / (row.ms / 1e3);
    table.rows.push_back({row.name, fmt::format("{:.2f}", row.ms), fmt::format("{:.1f}", 100 * row.ms / step_ms),
                          row.flops > 0 ? fmt::format("{:.1f}", rate / 1e9) : "",
                          row.flops > 0 ? fmt::format("{:.1f}", 100 * rate / peak) : ""});
  };
  for (const Row& row : rows) {
    if (row.ms >= 0.005 * step_ms) {
      add(row);
    } else {
      rest.ms += row.ms;
      rest.flops += row.flops;
    }
  }
  if (rest.ms > 0) add(rest);
  table.rows.emplace_back();
  add({"step", step_ms, flops()});
  table.note = fmt::format("peak: {:.0f} GFLOP/s, {}", peak / 1e9, unit);
  return table;
}

StepProfile profile_step(const StageGraph& graph, const CostTable& costs, const ModelConfig& model, int64_t seq_length,
                         double tokens, double step_ms, at::ScalarType dtype) {
  StepProfile profile;
  profile.step_ms = step_ms;
  profile.peak = matrix_peak(dtype);
  profile.unit =
      fmt::format("a product of 1024 x 1024 matrices in {} on {} threads", c10::toString(dtype), at::get_num_threads());
  std::map<std::string, StepProfile::Row> rows;
  double elsewhere = step_ms;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (node.is_collective()) continue;  // what a rank computes for it is charged to its reader
    StepProfile::Row& row = rows[fmt::format("{}.{}", to_string(node.pass), to_string(node.stage))];
    row.ms += costs.us[id] / 1e3;
    row.flops = tokens * stage_flops(model, node.stage, node.pass, seq_length);
    elsewhere -= costs.us[id] / 1e3;
  }
  for (auto& [name, row] : rows) {
    row.name = name;
    profile.rows.push_back(row);
  }
  if (elsewhere > 0) profile.rows.push_back({"elsewhere", elsewhere, 0});
  std::sort(profile.rows.begin(), profile.rows.end(), [](const auto& a, const auto& b) { return a.ms > b.ms; });
  return profile;
}

}  // namespace farskip
