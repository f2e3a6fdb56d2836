#include "layer/stage.h"

#include <string>

#include "base/error.h"

namespace farskip {

const std::vector<StageRow>& stage_table() {
  using enum Stage;
  constexpr auto compute = Lane::compute, comm = Lane::comm;
  static const std::vector<StageRow> table = {
      // stage, name, lane, weights, host sync
      {embed, "embed", compute, true, false},
      {view_attn, "view_attn", compute, false, false},
      {qkv, "qkv", compute, true, false},
      {attn_core, "attn_core", compute, false, false},
      {attn_out, "attn_out", compute, true, false},
      {view_ff, "view_ff", compute, true, false},
      {route, "route", compute, true, false},
      {counts, "counts", comm, false, true},
      {expert_load, "expert_load", comm, false, false},
      {permute, "permute", compute, false, false},
      {dispatch, "dispatch", comm, false, false},
      {shared, "shared", compute, true, false},
      {experts, "experts", compute, true, false},
      {combine, "combine", comm, false, false},
      {unpermute, "unpermute", compute, false, false},
      {dense, "dense", compute, true, false},
      {reduce_attn, "reduce_attn", comm, false, false},
      {reduce_shared, "reduce_shared", comm, false, false},
      {reduce_routed, "reduce_routed", comm, false, false},
      {reduce_dense, "reduce_dense", comm, false, false},
      {gather, "gather", comm, false, false},
      {reduce_scatter, "reduce_scatter", comm, false, false},
      {view_match, "view_match", compute, false, false},
      {match, "match", compute, false, false},
      {view_head, "view_head", compute, false, false},
      {head, "head", compute, true, false},
      {loss, "loss", compute, false, false},
      {sample, "sample", compute, false, false},
      {grad_reduce, "grad_reduce", comm, false, false},
      {grad_reduce_experts, "grad_reduce_experts", comm, false, false},
      {param_gather, "param_gather", comm, false, false},
      {param_gather_experts, "param_gather_experts", comm, false, false},
      {stats, "stats", comm, false, false},
      {optimizer, "optimizer", compute, false, false},
  };
  return table;
}

const StageRow& row(Stage stage) { return stage_table()[static_cast<size_t>(stage)]; }

std::string_view to_string(Stage stage) { return row(stage).name; }

std::string_view to_string(Pass pass) {
  constexpr std::string_view names[] = {"fwd", "bwd", "wgrad", "rec", "step", "teach"};
  return names[static_cast<size_t>(pass)];
}

Stage parse_stage(std::string_view name) {
  for (const auto& r : stage_table()) {
    if (r.name == name) return r.stage;
  }
  fail("'{}' is not a stage; the list is in src/layer/stage.h", std::string(name));
}

Pass parse_pass(std::string_view name) {
  for (auto pass : {Pass::forward, Pass::backward, Pass::wgrad, Pass::recompute, Pass::step, Pass::teacher}) {
    if (to_string(pass) == name) return pass;
  }
  fail("'{}' is not a pass; expected fwd, bwd, wgrad, rec, step or teach", std::string(name));
}

}  // namespace farskip
