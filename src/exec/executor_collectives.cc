// Collectives of a step: what they carry, where it goes, and the spans they leave in the timeline.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "exec/executor_run.h"
#include "exec/token_rows.h"
#include "sim/simulate.h"
#include "transport/clock.h"

namespace farskip {
namespace {

BucketId bucket_of(const Node& node) {
  return {node.layer, node.stage == Stage::grad_reduce_experts || node.stage == Stage::param_gather_experts};
}

}  // namespace

void Executor::Run::launch(NodeId id) {
  at::NoGradGuard no_grad;
  const Node& node = graph.node(id);
  Transport& transport = e.communicators_.of(node.group);
  const std::string& name = e.names_[id];
  switch (node.stage) {
    case Stage::counts: {
      const auto& counts = state(node).routing[node.layer].plan.send_counts;
      const std::vector<int64_t> one_each(transport.size(), 1);
      in_flight[id] = transport.all_to_all(counts, one_each, one_each, name);
      break;
    }
    case Stage::expert_load: {
      at::Tensor load = state(node).routing[node.layer].load.to(at::kDouble);
      // What earlier microbatches have summed comes in once.
      if (node.reads.size() > 1 && transport.rank() == 0) load = load + values[node.reads[1]];
      in_flight[id] = transport.all_reduce(load, name);
      break;
    }
    case Stage::dispatch:
    case Stage::combine: {
      const auto& plan = state(node).routing[node.layer].plan;
      const bool backward = node.pass == Pass::backward;
      const bool outward = (node.stage == Stage::dispatch) != backward;
      const at::Tensor rows = (backward ? fan_in(node.output_grads[0]) : values[node.reads[0]]).contiguous();
      in_flight[id] = transport.all_to_all(rows, outward ? plan.send_rows : plan.recv_rows,
                                           outward ? plan.recv_rows : plan.send_rows, name);
      break;
    }
    case Stage::grad_reduce:
    case Stage::grad_reduce_experts: {
      if (graph.options().shard_optimizer) {
        in_flight[id] = transport.reduce_scatter(e.hooks_->shards().pack_gradients(bucket_of(node)), name);
        break;
      }
      const at::Device device = e.parameters_->options().device;
      std::vector<at::Tensor> flat{at::empty({0}, at::TensorOptions().dtype(at::kFloat).device(device))};
      for (int p : trained_parameters(*e.parameters_, bucket_of(node)))
        flat.push_back(e.parameters_->main_grad(p).flatten());
      in_flight[id] = transport.all_reduce(at::cat(flat), name);
      break;
    }
    case Stage::param_gather:
    case Stage::param_gather_experts: {
      in_flight[id] = transport.all_gather(e.hooks_->shards().pack_values(bucket_of(node)), name);
      break;
    }
    case Stage::stats:
      in_flight[id] = transport.all_reduce(e.hooks_->local_stats(result.microbatches, result.losses), name);
      break;
    case Stage::reduce_attn:
    case Stage::reduce_shared:
    case Stage::reduce_routed:
    case Stage::reduce_dense: {
      at::Tensor partial = values[node.reads[0]];
      for (size_t i = 1; i < node.reads.size(); ++i) partial = partial + values[node.reads[i]];
      in_flight[id] = transport.all_reduce(std::move(partial), name);
      break;
    }
    case Stage::gather: {
      std::vector<at::Tensor> parts = read(node.reads);
      parts[0] = parts[0].flatten(0, 1);
      in_flight[id] = transport.all_gather(pack_tokens(parts), name, state(node).batch.rank_tokens);
      for (at::Tensor& part : parts) part = at::empty({0, part.size(1)}, part.options());
      gathered[id] = std::move(parts);
      break;
    }
    case Stage::reduce_scatter:
      in_flight[id] =
          transport.reduce_scatter(values[node.reads[0]].flatten(0, 1), name, state(node).batch.rank_tokens);
      break;
    default:
      FARSKIP_CHECK(false, "not a collective: " + name);
  }
  release_reads(node);
}

void Executor::Run::await(NodeId id) {
  at::NoGradGuard no_grad;
  const Node& node = graph.node(id);
  CollectiveReport report;
  const auto found = in_flight.find(id);
  Pending pending = std::move(found->second);
  in_flight.erase(found);
  at::Tensor received = pending.await(&report);
  switch (node.stage) {
    case Stage::counts:
      nn::complete_route_plan(state(node).routing[node.layer].plan, received);
      break;
    case Stage::expert_load: {
      at::Tensor& load = state(node).routing[node.layer].global_load;
      if (!load.defined()) load = at::empty_like(received);  // the gate, which is to be computed again, made none
      load.copy_(received);
      write(node.writes[0], std::move(received));
      break;
    }
    case Stage::dispatch:
    case Stage::combine:
      write(node.pass == Pass::backward ? node.input_grads[0] : node.writes[0], std::move(received));
      break;
    case Stage::reduce_attn:
    case Stage::reduce_shared:
    case Stage::reduce_routed:
    case Stage::reduce_dense:
      write(node.writes[0], std::move(received));
      break;
    case Stage::gather: {
      auto parts = unpack_tokens(received, gathered.extract(id).mapped());
      parts[0] = parts[0].unsqueeze(0);
      for (size_t i = 0; i < parts.size(); ++i) write(node.writes[i], std::move(parts[i]));
      break;
    }
    case Stage::reduce_scatter: {
      const at::Tensor& tokens = state(node).batch.tokens;
      write(node.writes[0], received.view({tokens.size(0), tokens.size(1), received.size(1)}));
      break;
    }
    case Stage::grad_reduce:
    case Stage::grad_reduce_experts: {
      if (graph.options().shard_optimizer) {
        e.hooks_->shards().take_gradients(bucket_of(node), received);
        break;
      }
      int64_t offset = 0;
      for (int p : trained_parameters(*e.parameters_, bucket_of(node))) {
        at::Tensor& gradient = e.parameters_->main_grad(p);
        gradient.copy_(received.narrow(0, offset, gradient.numel()).view_as(gradient));
        offset += gradient.numel();
      }
      break;
    }
    case Stage::param_gather:
    case Stage::param_gather_experts:
      e.hooks_->shards().take_values(bucket_of(node), received);
      break;
    default:
      stats = received;
      break;
  }
  awaited.push_back({id, now_us()});
  result.reports.push_back(std::move(report));
}

/// The spans of a collective, when the step is over: only then does a device know its times.
void Executor::Run::record_collective(NodeId id, CollectiveReport& report, double finished_us) {
  settle(report);
  // A collective begins when its last rank has launched it; waiting before that is imbalance between ranks.
  record(id, SpanKind::collective, report.started_us, std::max(report.started_us, report.completed_us));
  const double waited_until = report.awaited_us + report.waited_us;
  const double wait_begin = std::clamp(report.started_us, report.awaited_us, waited_until);
  if (wait_begin > report.awaited_us) record(id, SpanKind::skew, report.awaited_us, wait_begin);
  if (waited_until > wait_begin) record(id, SpanKind::wait, wait_begin, waited_until);
  // Copies and sums of this rank's own.
  if (finished_us > waited_until) record(id, SpanKind::compute, waited_until, finished_us);
}

/// Spans are made when the step is over: their texts would cost time inside it.
void Executor::Run::finish_timeline() {
  result.timeline.title = e.schedule_.name;
  for (size_t i = 0; i < awaited.size(); ++i) record_collective(awaited[i].first, result.reports[i], awaited[i].second);
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.begin < b.begin; });
  for (const auto& [id, kind, begin, end] : events) {
    const Node& node = graph.node(id);
    result.timeline.spans.push_back(
        {e.communicators_.world->rank(), kind == SpanKind::collective ? lane_name(node) : "compute", e.names_[id],
         std::string(to_string(node.stage)), std::string(to_string(node.pass)), kind, begin, end});
  }
}

}  // namespace farskip
