#pragma once
// One cell of the equality matrix: a tiny model trained for a few steps on ranks that are threads, and the bits it
// leaves behind.

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/session.h"

namespace farskip::test {

/// Where tokens go, by the router's correction bias.
enum class Skew {
  none,
  crowded,  ///< every token visits expert 0
  idle,     ///< no token visits expert 1
  leave,    ///< every token visits only experts of the last expert rank: the tokens of all other ranks leave
};

struct Trial {
  std::string model = "moonlight";  ///< a name of tiny_model()
  std::string connectivity = "farskip";
  Layout layout{.ep = 2};
  int num_microbatches = 2;
  bool bf16 = false;
  bool gloo = false;
  bool sharded = false;        ///< masters and optimizer state shared out
  std::string recompute = {};  ///< "full", "full 2" (layers), or modules; empty: nothing
  Skew skew = Skew::none;
  int num_steps = 2;
  int num_random = 20;  ///< random orders that the matrix runs
  bool packed = false;  ///< sequences of several documents
  LoadBalancing balancing = LoadBalancing::seq_aux_loss;
  std::string freeze = {};  ///< TrainConfig::freeze

  std::string name() const;
  TrainConfig config() const;
};

/// A config.json of a family, hidden size 32, 3 or 4 layers:
///   moonlight  latent attention, sigmoid router with correction bias, shared experts, first layer dense
///   instella   the same with gated attention and a dense layer after each MoE layer
///   v2         latent attention with a query LoRA, softmax router in groups, auxiliary loss
///   llama4     layers that differ in attention, one expert that weighs its input, a dense layer between MoE layers
///   qwen3      grouped-query attention, no shared experts, a dense layer after a MoE layer
nlohmann::json tiny_model(const std::string& name);

/// Everything a run leaves behind on one rank, as (name, hash of the bytes): losses, gradients and statistics of every
/// step, weights and router biases at the end.
using Bits = std::vector<std::pair<std::string, uint64_t>>;

struct Outcome {
  std::vector<Bits> ranks;
  std::vector<std::vector<int64_t>> load;  ///< of the last step, per layer and expert
  double loss = 0;                         ///< of the last step
  bool operator==(const Outcome& other) const { return ranks == other.ranks; }
};

uint64_t hash_of(const Outcome& outcome);
/// "rank 1: step0.grad.lm_head.weight", or "nothing".
std::string first_difference(const Outcome& a, const Outcome& b);

using Order = std::function<Schedule(const StageGraph&, const ModelConfig&)>;
Order reference_order();
Order random_order(uint64_t seed);
/// reference, paper, search, async, 1f1b, two-batch.
Order named_order(const std::string& name);

/// Trains a fresh model under each order. Orders are the same on all ranks. With `options` the steps go through
/// executors of their own instead of the session's.
std::vector<Outcome> run_orders(const Trial& trial, const std::vector<Order>& orders,
                                const ExecutorOptions* options = nullptr);
Outcome run_order(const Trial& trial, const Order& order);

/// Calls body(world) on every rank of a trial, over its transport.
void on_ranks(const Trial& trial, const std::function<void(World&)>& body);
/// A fresh model with the trial's skew.
TrainingSession make_session(const Trial& trial, World& world);

/// Losses of a step and the gradients it left; weights and router biases.
void append_step(Bits& bits, int step, const StepResult& result, TrainingSession& session);
void append_weights(Bits& bits, ParameterSet& parameters);
uint64_t hash_of(const at::Tensor& tensor);

/// Gradients or weights under their Hugging Face names, of the experts that this rank holds.
std::map<std::string, at::Tensor> named_pieces(ParameterSet& parameters, bool gradients);

/// Collectives in the order of their launch.
std::vector<NodeId> collective_order(const StageGraph& graph, const Schedule& schedule);

}  // namespace farskip::test
