#include "sim/cost_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/philox.h"
#include "config/flops.h"

namespace farskip {
namespace {

double weights_of(const ModelConfig& m, Stage stage, bool moe, double ranks) {
  const auto& a = m.attention;
  const auto H = static_cast<double>(m.hidden_size), heads = static_cast<double>(a.num_heads);
  switch (stage) {
    case Stage::embed:
    case Stage::head:
      return static_cast<double>(m.vocab_size) * H;
    case Stage::qkv:
    case Stage::attn_out: {
      const double out = H * heads * static_cast<double>(a.v_head_dim);
      return stage == Stage::attn_out
                 ? out
                 : layer_flops(m, moe ? LayerKind::moe : LayerKind::dense, 0).attention_projections / 2 - out;
    }
    case Stage::route:
      return H * static_cast<double>(m.num_experts);
    case Stage::shared:
      return 3 * H * static_cast<double>(m.shared_intermediate_size);
    case Stage::dense:
      return 3 * H * static_cast<double>(m.intermediate_size);
    case Stage::experts:
      return 3 * H * static_cast<double>(m.moe_intermediate_size) * static_cast<double>(m.num_experts) / ranks;
    case Stage::view_ff:
      return H;
    default:
      return 0;
  }
}

/// Those of them that have gradients.
double trained_weights(const StageGraph& graph, const ModelConfig& m, const FrozenWeights& frozen, int64_t layer,
                       Stage stage) {
  const bool moe = layer >= 0 && layer < graph.num_layers() && m.is_moe(layer);
  const double ranks = graph.options().layout.expert_ranks(graph.options().phase);
  auto count = [&](int64_t of_layer, Stage of_stage) {
    const auto found = frozen.find({of_layer, of_stage});
    return found == frozen.end() ? 0 : found->second / (of_stage == Stage::experts ? ranks : 1);
  };
  double without = count(layer, stage);
  if (m.tie_word_embeddings && stage == Stage::head) without += count(-1, Stage::embed);
  return std::max(0.0, weights_of(m, stage, moe, ranks) - without);
}

/// Their share in the weights of a stage.
double trained_share(const StageGraph& graph, const ModelConfig& m, const FrozenWeights& frozen, const Node& node) {
  const double all = trained_weights(graph, m, {}, node.layer, node.stage);
  return all > 0 ? trained_weights(graph, m, frozen, node.layer, node.stage) / all : 1;
}

/// Values that one position keeps in the cache of one layer on one of `tp` ranks. The latent is not divided.
double cached_values(const AttentionConfig& a, double tp) {
  return a.kind == AttentionKind::mla ? static_cast<double>(a.kv_lora_rank + a.qk_rope_head_dim)
                                      : static_cast<double>(a.num_kv_heads * (a.qk_head_dim() + a.v_head_dim)) / tp;
}

/// Seconds of matrix work and bytes of memory traffic of a forward stage.
struct Work {
  double flops = 0;
  double rate = 1;
  double bytes = 0;
};

Work forward_work(const StageGraph& graph, const ModelConfig& m, const Machine& machine, const Workload& load,
                  const Node& node) {
  const auto exchange = graph.options().layout.exchange(graph.options().phase);
  const double tp = exchange == Exchange::all_reduce ? graph.options().layout.tp : 1;
  const double ranks = graph.options().layout.expert_ranks(graph.options().phase);
  const bool moe = node.layer >= 0 && node.layer < graph.num_layers() && m.is_moe(node.layer);
  const double T = load.tokens(), H = static_cast<double>(m.hidden_size), b = load.bytes_per_value;
  const double K = static_cast<double>(m.top_k), E = static_cast<double>(m.num_experts);
  const double weights = weights_of(m, node.stage, moe, ranks);
  // Rows that this rank's experts work on, tokens that they are taken from and added to, rows of all ranks.
  const double divisor = graph.options().layout.expert_divisor(graph.options().phase);
  const double rows = T * K * (divisor > 1 ? load.skew : 1) / (exchange == Exchange::all_reduce ? divisor : 1);
  const double tokens = T * (exchange == Exchange::gather ? ranks : 1);
  const double all_rows = T * K * (exchange == Exchange::all_reduce ? 1 : ranks);
  // A backward node passes the gradients of its forward node's sums on; the weight of a norm has nothing to do with
  // them.
  const NodeId summing = node.pass == Pass::backward ? node.forward : no_node;
  const double num_sums = static_cast<double>((summing == no_node ? node : graph.node(summing)).sums.size());
  Work work{2 * T * weights / tp, machine.matrix_flops, weights * b / tp + 4 * T * H * b};
  switch (node.stage) {
    case Stage::embed:
      work.flops = 0;
      work.bytes = 2 * T * H * b;
      break;
    case Stage::view_attn:
    case Stage::view_match:
    case Stage::view_head:
      work.bytes = 3 * T * H * b * num_sums;
      break;
    case Stage::view_ff:
      work.flops = 0;
      work.bytes = 3 * T * H * b * (num_sums + 1);
      break;
    case Stage::attn_core: {
      const int64_t chunk = m.attention.of_layer(node.layer).chunk;
      const auto length = static_cast<int64_t>(load.seq_length);
      // In decode the newest position sees half of a chunk on average.
      const bool inside_chunk = chunk > 0 && chunk < length;
      const double decoded = inside_chunk ? static_cast<double>(chunk) / 2 : load.seq_length;
      const double context = load.decode ? decoded : causal_context(length, chunk);
      const auto kind = moe ? LayerKind::moe : LayerKind::dense;
      work.flops = T * layer_flops(m, kind, context).attention_core / tp;
      work.rate = machine.attention_flops;
      const double heads = static_cast<double>(m.attention.num_heads);
      work.bytes = T * heads * static_cast<double>(2 * m.attention.qk_head_dim() + 2 * m.attention.v_head_dim) * b / tp;
      if (load.decode) work.bytes += T * context * cached_values(m.attention, tp) * b;
      break;
    }
    case Stage::route:
      work.rate = 0.15 * machine.matrix_flops;
      work.bytes += 6 * T * E * 4;
      break;
    case Stage::permute:
    case Stage::unpermute:
      work.bytes = (rows + tokens) * H * b / 0.15;
      break;  // gathers reach little of the bandwidth
    case Stage::experts: {
      const double per_expert = rows / (E / divisor);
      work.flops = 6 * H * static_cast<double>(m.moe_intermediate_size) * rows * divisor / ranks;
      work.rate = machine.grouped_flops * per_expert / (per_expert + (machine.host_computes ? 8 : 512));
      // With few rows (decode) some experts get none, and their weights are not read.
      work.bytes = weights * b * (1 - std::pow(1 - 1 / E, all_rows)) + 4 * rows * H * b;
      break;
    }
    case Stage::head:
      work.bytes += 2 * T * static_cast<double>(m.vocab_size) * 4;
      break;
    case Stage::loss:
    case Stage::sample:
      work.bytes = 2 * T * static_cast<double>(m.vocab_size) * 4;
      break;
    default:
      break;
  }
  return work;
}

/// Weights that one rank's optimizer updates.
double kept_parameters(const StageGraph& graph, const ModelConfig& m, const FrozenWeights& frozen) {
  const Layout& layout = graph.options().layout;
  double total = 0;
  for (const Node& node : graph.nodes()) {
    if (node.pass != Pass::forward || node.microbatch != 0) continue;
    const double replicas = !graph.options().shard_optimizer ? 1
                            : node.stage == Stage::experts   ? layout.dp
                                                             : layout.world();
    total += trained_weights(graph, m, frozen, node.layer, node.stage) / replicas;
  }
  return total;
}

/// Weights that a gather brings: of the stages that wait for it, counted once.
double gathered_weights(const StageGraph& graph, const ModelConfig& m, NodeId id) {
  double weights = 0;
  for (NodeId reader : graph.value(graph.node(id).writes[0]).readers) {
    const Node& node = graph.node(reader);
    if (node.microbatch > 0 || (m.tie_word_embeddings && node.stage == Stage::embed)) continue;
    const bool moe = node.layer >= 0 && node.layer < graph.num_layers() && m.is_moe(node.layer);
    weights += weights_of(m, node.stage, moe, graph.options().layout.expert_ranks(graph.options().phase));
  }
  return weights;
}

int group_size(const StageGraph& graph, Group group) {
  const Layout& layout = graph.options().layout;
  switch (group) {
    case Group::none:
      return 1;
    case Group::expert:
      return layout.expert_ranks(graph.options().phase);
    case Group::expert_data:
      return layout.dp;
    case Group::world:
      return layout.world();
  }
  return 1;
}

}  // namespace

CostTable CostTable::with_slower_communication(const StageGraph& graph, double factor) const {
  CostTable table = *this;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (graph.node(id).is_collective()) table.us[id] *= factor;
  }
  return table;
}

CostTable CostTable::with_jitter(const StageGraph& graph, double jitter, uint64_t seed, uint64_t stream) const {
  CostTable table = *this;
  Philox random(seed, stream);
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const double uniform = static_cast<double>(random.next() >> 11) * 0x1p-53;
    if (!graph.node(id).is_collective()) table.us[id] *= 1 - jitter * std::log1p(-uniform);
  }
  return table;
}

Workload training_workload(const TrainConfig& config, FrozenWeights frozen) {
  Workload load;
  load.frozen = std::move(frozen);
  load.sequences = static_cast<double>(config.micro_batch_size);
  load.seq_length = static_cast<double>(config.seq_length);
  load.bytes_per_value = config.dtype == TrainDtype::bf16 ? 2 : 4;
  return load;
}

double collective_bytes(const StageGraph& graph, const ModelConfig& m, const Workload& load, NodeId id) {
  const Node& node = graph.node(id);
  const double T = load.tokens(), H = static_cast<double>(m.hidden_size), b = load.bytes_per_value;
  const double ranks = group_size(graph, node.group);
  switch (node.stage) {
    case Stage::counts:
    case Stage::expert_load:
      return static_cast<double>(m.num_experts) * 8;
    case Stage::dispatch:
    case Stage::combine:
      return T * static_cast<double>(m.top_k) * H * b * load.skew;
    case Stage::gather:
    case Stage::reduce_scatter:
      return T * ranks * H * b;
    case Stage::reduce_attn:
    case Stage::reduce_shared:
    case Stage::reduce_routed:
    case Stage::reduce_dense:
      return T * H * b;
    case Stage::grad_reduce:
    case Stage::grad_reduce_experts: {
      double weights = 0;
      for (ValueId v : node.reads) {
        const Node& producer = graph.node(graph.value(v).producer);
        weights += trained_weights(graph, m, load.frozen, producer.layer, producer.stage);
      }
      return 4 * weights;
    }
    case Stage::param_gather:
    case Stage::param_gather_experts:
      return gathered_weights(graph, m, id) * b;
    case Stage::stats:
      return 1024;
    default:
      return 0;
  }
}

double collective_us(bool all_reduce, double bytes, int ranks, double bytes_per_s, double latency_us) {
  if (ranks <= 1) return 0;
  const double share = static_cast<double>(ranks - 1) / ranks;
  return latency_us + (all_reduce ? 2 : 1) * share * bytes / bytes_per_s * 1e6;
}

CostTable model_costs(const StageGraph& graph, const ModelConfig& model, const Machine& machine, const Workload& load) {
  CostTable table{{}, machine.launch_us, machine.host_computes};
  table.us.resize(graph.num_nodes());
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (node.is_collective()) {
      table.us[id] = collective_us(graph.is_all_reduce(id), collective_bytes(graph, model, load, id),
                                   group_size(graph, node.group), machine.link_bytes_per_s, machine.link_latency_us);
      continue;
    }
    double seconds = 0;
    if (node.stage == Stage::optimizer) {
      seconds = 44 * kept_parameters(graph, model, load.frozen) / machine.memory_bytes_per_s;
    } else {
      const Work work = forward_work(graph, model, machine, load, node);
      // dgrad = wgrad = forward for matrix products; fused core attention costs 2.5 times its forward; traffic doubles.
      const double flops =
          node.pass == Pass::backward && node.stage == Stage::attn_core ? 2.5 * work.flops : work.flops;
      const double bytes = node.pass == Pass::backward ? 2 * work.bytes : work.bytes;
      seconds = std::max(flops / work.rate, bytes / machine.memory_bytes_per_s);
      if (node.pass == Pass::wgrad) seconds *= trained_share(graph, model, load.frozen, node);
    }
    table.us[id] = seconds * 1e6 + machine.kernel_gap_us;
  }
  return table;
}

}  // namespace farskip
