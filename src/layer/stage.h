#pragma once
// The closed list of stages: what a transformer step is made of. One spelling, used by code, schedules, traces, cost
// tables, the command line and drawings.

#include <cstdint>
#include <string_view>
#include <vector>

namespace farskip {

enum class Stage : uint8_t {
  embed,
  view_attn,  ///< sums that attention's input needs
  qkv,        ///< input_layernorm, projections to queries, keys and values, rotary embedding, output gate
  attn_core,
  attn_out,        ///< output projection
  view_ff,         ///< sums that the feed-forward's input needs, then post_attention_layernorm
  route,           ///< gate: chosen experts and their weights
  counts,          ///< exchange of split sizes; the host waits for it
  expert_load,     ///< rows of every expert on all ranks; nobody waits for it before the gate's backward
  permute,         ///< rows in the order of their experts
  dispatch,        ///< rows travel to their experts
  shared,          ///< shared experts
  experts,         ///< routed experts
  combine,         ///< rows travel back
  unpermute,       ///< rows weighed and added per token
  dense,           ///< feed-forward of a dense layer
  reduce_attn,     ///< all-reduce of the partial sums that include attention's
  reduce_shared,   ///< all-reduce of shared experts' partial sums, where they go alone
  reduce_routed,   ///< all-reduce of the partial sums that include the routed experts', without attention's
  reduce_dense,    ///< all-reduce of a dense feed-forward's partial sums, where they go alone
  gather,          ///< tokens of all ranks before the experts
  reduce_scatter,  ///< sums back to the tokens' ranks
  view_match,      ///< sums of the whole stream before a layer, where teacher and student are compared
  match,           ///< distance of the student's stream from its teacher's
  view_head,       ///< sums that the head needs, then the final norm
  head,
  loss,
  sample,
  grad_reduce,           ///< gradients of a layer's replicated weights, over all ranks
  grad_reduce_experts,   ///< gradients of a layer's experts, over the ranks that hold the same ones
  param_gather,          ///< a layer's replicated weights, from the ranks whose optimizers keep them
  param_gather_experts,  ///< a layer's experts, from the ranks that hold the same ones
  stats,                 ///< loss, gradient norm and expert load, over all ranks
  optimizer,
};
inline constexpr int num_stages = static_cast<int>(Stage::optimizer) + 1;

enum class Pass : uint8_t {
  forward,
  backward,   ///< gradients of a stage's inputs
  wgrad,      ///< gradients of a stage's weights; nobody waits for them before the optimizer
  recompute,  ///< a forward stage once more, for the state its backward needs
  step,       ///< once a step, after all microbatches
  teacher,    ///< forward of another model with the same shape, whose gradients nobody wants
};

/// Where a stage runs. Communication lanes are told apart by their communicator.
enum class Lane : uint8_t { compute, comm };

struct StageRow {
  Stage stage;
  std::string_view name;
  Lane lane;
  bool has_weights;
  bool host_sync;  ///< its result decides sizes on the host, so that awaiting it blocks the host
};

/// The table itself, in the order of the enum.
const std::vector<StageRow>& stage_table();
const StageRow& row(Stage stage);
/// Stages that are nothing but sums of the stream.
constexpr bool only_sums(Stage stage) {
  return stage == Stage::view_attn || stage == Stage::view_match || stage == Stage::view_head;
}
constexpr bool is_gather(Stage stage) { return stage == Stage::param_gather || stage == Stage::param_gather_experts; }
constexpr bool is_gradient_reduction(Stage stage) {
  return stage == Stage::grad_reduce || stage == Stage::grad_reduce_experts;
}
std::string_view to_string(Stage stage);
std::string_view to_string(Pass pass);
/// Throws Error for a name that is not in the list.
Stage parse_stage(std::string_view name);
Pass parse_pass(std::string_view name);

}  // namespace farskip
