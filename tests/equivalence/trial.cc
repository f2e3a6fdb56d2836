#include "tests/equivalence/trial.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/files.h"
#include "sim/search.h"
#include "transport/c10d.h"
#include "transport/loopback.h"

namespace farskip::test {
namespace {

constexpr int64_t vocab_size = 48;
constexpr int64_t seq_length = 8;

uint64_t fnv(const void* data, size_t size, uint64_t value = 0xcbf29ce484222325ull) {
  for (size_t i = 0; i < size; ++i) value = (value ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3ull;
  return value;
}

/// The path of the model's config.json, which all processes that write it write alike.
std::string config_path(const std::string& name) {
  const std::string path = fmt::format("{}farskip_equivalence/{}.json", ::testing::TempDir(), name);
  create_parent_folders(path);
  write_file(path, tiny_model(name).dump(1));
  return path;
}

/// Sequences of the same tokens that are one, two or three documents.
SampleSource packed(const SampleSource& samples) {
  return [samples](int64_t i) {
    TrainSample sample = samples(i);
    if (i % 3 == 0) return sample;
    sample.cu_seqlens = i % 3 == 1 ? std::vector<int32_t>{0, 5, 8} : std::vector<int32_t>{0, 1, 4, 8};
    for (size_t d = 0; d + 1 < sample.cu_seqlens.size(); ++d) {
      for (int32_t t = 0; t < sample.cu_seqlens[d + 1] - sample.cu_seqlens[d]; ++t) sample.position_ids.push_back(t);
    }
    return sample;
  };
}

void set_skew(TrainingSession& session, Skew skew) {
  if (skew == Skew::none) return;
  constexpr float always = 10;
  const auto& buffers = session.parameters().table().buffers();
  FARSKIP_CHECK(!buffers.empty(), "skew is made by the correction bias");
  for (size_t i = 0; i < buffers.size(); ++i) {
    at::Tensor bias = session.parameters().buffer(static_cast<int>(i));
    if (skew == Skew::crowded) bias[0] = always;
    if (skew == Skew::idle) bias[1] = -always;
    if (skew == Skew::leave)
      bias.narrow(0, bias.size(0) / session.layout().ep * (session.layout().ep - 1), 2).fill_(always);
  }
}

}  // namespace

nlohmann::json tiny_model(const std::string& name) {
  nlohmann::json latent = {{"vocab_size", vocab_size},     {"hidden_size", 32},        {"intermediate_size", 48},
                           {"moe_intermediate_size", 16},  {"num_hidden_layers", 4},   {"num_attention_heads", 4},
                           {"num_key_value_heads", 4},     {"kv_lora_rank", 16},       {"q_lora_rank", nullptr},
                           {"qk_nope_head_dim", 8},        {"qk_rope_head_dim", 4},    {"v_head_dim", 8},
                           {"n_routed_experts", 8},        {"num_experts_per_tok", 2}, {"n_shared_experts", 1},
                           {"first_k_dense_replace", 1},   {"initializer_range", 0.2}, {"rms_norm_eps", 1e-5},
                           {"max_position_embeddings", 64}};
  if (name == "moonlight" || name == "instella") {
    latent.update({{"model_type", "deepseek_v3"},
                   {"architectures", {"DeepseekV3ForCausalLM"}},
                   {"scoring_func", "sigmoid"},
                   {"topk_method", "noaux_tc"},
                   {"n_group", 1},
                   {"topk_group", 1},
                   {"norm_topk_prob", true},
                   {"aux_loss_alpha", 0.001}});
    if (name == "instella") {
      latent.update({{"architectures", {"InstellaMoEForCausalLM"}},
                     {"gated_attention", true},
                     {"first_k_dense_replace", 0},
                     {"moe_layer_freq", 2}});
    }
    return latent;
  }
  if (name == "v2") {
    latent.update({{"model_type", "deepseek_v2"},
                   {"architectures", {"DeepseekV2ForCausalLM"}},
                   {"q_lora_rank", 16},
                   {"num_hidden_layers", 3},
                   {"scoring_func", "softmax"},
                   {"topk_method", "group_limited_greedy"},
                   {"n_group", 4},
                   {"topk_group", 2},
                   {"norm_topk_prob", false},
                   {"seq_aux", true},
                   {"aux_loss_alpha", 0.01}});
    return latent;
  }
  if (name == "llama4") {
    return {{"model_type", "llama4_text"},
            {"architectures", {"Llama4ForCausalLM"}},
            {"vocab_size", vocab_size},
            {"hidden_size", 32},
            {"intermediate_size", 16},
            {"intermediate_size_mlp", 48},
            {"num_hidden_layers", 4},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 2},
            {"head_dim", 8},
            {"num_local_experts", 8},
            {"num_experts_per_tok", 1},
            {"moe_layers", {0, 2, 3}},
            {"no_rope_layers", {1, 1, 0, 1}},
            {"attention_chunk_size", 3},
            {"floor_scale", 2},
            {"attn_scale", 0.5},
            {"initializer_range", 0.2},
            {"max_position_embeddings", 64},
            {"rms_norm_eps", 1e-5}};
  }
  FARSKIP_CHECK(name == "qwen3", "no such tiny model: " + name);
  return {{"model_type", "qwen3_moe"}, {"architectures", {"Qwen3MoeForCausalLM"}},
          {"vocab_size", vocab_size},  {"hidden_size", 32},
          {"intermediate_size", 48},   {"moe_intermediate_size", 16},
          {"num_hidden_layers", 4},    {"num_attention_heads", 4},
          {"num_key_value_heads", 2},  {"head_dim", 8},
          {"num_experts", 8},          {"num_experts_per_tok", 2},
          {"norm_topk_prob", true},    {"mlp_only_layers", {1}},
          {"initializer_range", 0.2},  {"max_position_embeddings", 64}};
}

std::string Trial::name() const {
  std::string text = fmt::format("{}_{}_{}_mb{}_{}{}", model, connectivity, layout.to_string(), num_microbatches,
                                 bf16 ? "bf16" : "fp32", gloo ? "_gloo" : "");
  constexpr const char* skews[] = {"", "_crowded", "_idle", "_leave"};
  text += skews[static_cast<size_t>(skew)];
  if (sharded) text += "_sharded";
  if (!recompute.empty()) text += "_recompute_" + recompute;
  constexpr const char* balancings[] = {"", "_aux", "_global_aux", "_no_aux"};
  text += balancings[static_cast<size_t>(balancing)];
  if (packed) text += "_packed";
  if (!freeze.empty()) text += "_freeze_" + freeze;
  for (char& c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return text;
}

TrainConfig Trial::config() const {
  TrainConfig config;
  config.model = config_path(model);
  config.connectivity = connectivity;
  config.dtype = bf16 ? TrainDtype::bf16 : TrainDtype::fp32;
  config.seq_length = seq_length;
  config.micro_batch_size = 1;
  config.global_batch_size = static_cast<int64_t>(num_microbatches) * layout.world();
  config.lr = 1e-2;
  config.layout = layout.to_string();
  config.use_distributed_optimizer = sharded;
  if (recompute.rfind("full", 0) == 0) {
    config.recompute_granularity = RecomputeGranularity::full;
    config.recompute_num_layers = recompute == "full" ? 0 : std::stoi(recompute.substr(5));
  } else if (!recompute.empty()) {
    config.recompute_granularity = RecomputeGranularity::selective;
    config.recompute_modules = recompute;
  }
  config.expert_model_parallel_size = layout.ep;
  config.data_parallel = layout.dp;
  config.moe_router_load_balancing_type = balancing;
  config.freeze = freeze;
  config.resolve(layout.world());
  return config;
}

uint64_t hash_of(const at::Tensor& tensor) {
  if (!tensor.defined()) return 0;
  const at::Tensor bytes = tensor.detach().contiguous();
  return fnv(bytes.const_data_ptr(), bytes.nbytes());
}

uint64_t hash_of(const Outcome& outcome) {
  uint64_t value = fnv(nullptr, 0);
  for (const Bits& bits : outcome.ranks) {
    for (const auto& [name, hash] : bits) value = fnv(&hash, sizeof hash, fnv(name.data(), name.size(), value));
  }
  return value;
}

std::string first_difference(const Outcome& a, const Outcome& b) {
  for (size_t rank = 0; rank < a.ranks.size(); ++rank) {
    const auto [at, other] = std::mismatch(a.ranks[rank].begin(), a.ranks[rank].end(), b.ranks.at(rank).begin());
    if (at != a.ranks[rank].end()) return fmt::format("rank {}: {}", rank, at->first);
  }
  return "nothing";
}

Order reference_order() {
  return [](const StageGraph& graph, const ModelConfig&) { return reference_schedule(graph); };
}

Order random_order(uint64_t seed) {
  return [seed](const StageGraph& graph, const ModelConfig&) { return random_schedule(graph, seed); };
}

Order named_order(const std::string& name) {
  return [name](const StageGraph& graph, const ModelConfig& model) {
    const Workload load{.sequences = 1, .seq_length = static_cast<double>(seq_length)};
    return named_schedule(name, graph, model_costs(graph, model, machine("cpu"), load));
  };
}

TrainingSession make_session(const Trial& trial, World& world) {
  const SampleSource samples = synthetic_samples(seq_length, vocab_size, 11);
  TrainingSession session(trial.config(), world, trial.packed ? packed(samples) : samples);
  set_skew(session, trial.skew);
  return session;
}

void on_ranks(const Trial& trial, const std::function<void(World&)>& body) {
  auto worlds = trial.gloo ? make_gloo_threads(trial.layout.world()) : make_loopback(trial.layout.world());
  run_ranks(worlds, body);
}

void append_step(Bits& bits, int step, const StepResult& result, TrainingSession& session) {
  const std::string prefix = fmt::format("step{}.", step);
  for (size_t m = 0; m < result.losses.size(); ++m) {
    bits.emplace_back(fmt::format("{}loss.mb{}", prefix, m), hash_of(result.losses[m]));
  }
  for (const ParameterInfo& info : session.parameters().table().parameters()) {
    if (session.parameters().frozen(info.id)) continue;
    bits.emplace_back(prefix + "grad." + info.name, hash_of(session.parameters().main_grad(info.id)));
  }
}

void append_weights(Bits& bits, ParameterSet& parameters) {
  for (const ParameterInfo& info : parameters.table().parameters()) {
    bits.emplace_back("weight." + info.name, hash_of(parameters.stored(info.id)));
    bits.emplace_back("value." + info.name, hash_of(parameters.value(info.id)));
  }
  for (size_t i = 0; i < parameters.table().buffers().size(); ++i) {
    bits.emplace_back("bias." + parameters.table().buffers()[i].name, hash_of(parameters.buffer(static_cast<int>(i))));
  }
}

namespace {

/// Trains for the trial's steps; returns what this rank is left with.
Bits train(const Trial& trial, World& world, const Order& order, const ExecutorOptions* options, Outcome& outcome) {
  TrainingSession session = make_session(trial, world);
  const Schedule schedule = order(session.graph(), session.model().config);
  std::optional<ParameterShards> shards;  // for executors of one's own
  std::optional<TrainingStep> hooks;
  if (options != nullptr) {
    shards.emplace(session.parameters(), session.layout(), world.rank(), /*sharded=*/false);
    hooks.emplace(session.model().config, session.parameters(), *shards, session.config(), session.layout(),
                  world.rank());
  }
  Bits bits;
  for (int step = 0; step < trial.num_steps; ++step) {
    StepResult result;
    if (options == nullptr) {
      result = session.step(step, schedule);
    } else {
      hooks->begin(session.position(step));
      Executor executor(session.graph(), schedule, session.math(), session.parameters(), session.communicators(),
                        &*hooks, *options);
      result = executor.run(session.batches(step));
    }
    append_step(bits, step, result, session);
    const StepStats& stats = options == nullptr ? session.stats() : hooks->stats();
    bits.emplace_back(fmt::format("step{}.loss", step), fnv(&stats.loss, sizeof stats.loss));
    bits.emplace_back(fmt::format("step{}.norm", step), fnv(&stats.gradient_norm, sizeof stats.gradient_norm));
    if (world.rank() == 0) {
      outcome.loss = stats.loss;
      outcome.load = stats.load;
    }
  }
  session.gather_weights();
  append_weights(bits, session.parameters());
  return bits;
}

}  // namespace

std::vector<Outcome> run_orders(const Trial& trial, const std::vector<Order>& orders, const ExecutorOptions* options) {
  const int num_ranks = trial.layout.world();
  std::vector<Outcome> outcomes(orders.size());
  for (Outcome& outcome : outcomes) outcome.ranks.resize(num_ranks);
  on_ranks(trial, [&](World& world) {
    for (size_t i = 0; i < orders.size(); ++i) {
      outcomes[i].ranks[world.rank()] = train(trial, world, orders[i], options, outcomes[i]);
    }
  });
  return outcomes;
}

Outcome run_order(const Trial& trial, const Order& order) { return run_orders(trial, {order}).front(); }

std::map<std::string, at::Tensor> named_pieces(ParameterSet& parameters, bool gradients) {
  std::map<std::string, at::Tensor> pieces;
  for (const ParameterInfo& info : parameters.table().parameters()) {
    const at::Tensor& tensor = gradients ? parameters.main_grad(info.id) : parameters.stored(info.id);
    parameters.for_each_piece(info.id, tensor, [&](const TensorPiece& piece, const at::Tensor& block) {
      pieces[piece.name] = block.clone();
    });
  }
  return pieces;
}

std::vector<NodeId> collective_order(const StageGraph& graph, const Schedule& schedule) {
  std::vector<NodeId> order;
  for (const Op& op : schedule.ops) {
    if (op.kind == OpKind::launch) order.push_back(op.node);
  }
  return order;
}

}  // namespace farskip::test
