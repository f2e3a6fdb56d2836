#pragma once
// Layout: how a model and its tokens are spread over ranks. It belongs to the run and never changes the function.

#include <cstdint>
#include <string>

namespace farskip {

struct ModelConfig;

enum class Phase { train, prefill, decode };
Phase parse_phase(const std::string& text);
const char* to_string(Phase phase);

/// How tokens reach their experts.
enum class Exchange {
  all_to_all,  ///< rows travel to the rank of their expert and back (training; inference with ep=N,exchange=a2a)
  all_reduce,  ///< activations are replicated, partial sums are added over ranks (inference with tp=N)
  gather,      ///< tokens are gathered before, and their sums scattered after the experts (inference with ep=N)
};

/// A communicator. Ranks agree on the order of collectives within each.
enum class Group : uint8_t {
  none,
  expert,       ///< the ep ranks that share one set of experts (tp ranks in the all_reduce layout)
  expert_data,  ///< the dp ranks that hold the same experts
  world,        ///< all ranks of one pipeline stage: replicas of the dense weights
};
const char* to_string(Group group);

/// world = ep * dp * tp * pp ranks. Megatron's data-parallel size is ep * dp (its expert-data-parallel size is dp).
struct Layout {
  int ep = 1;
  int dp = 1;
  int tp = 1;
  int pp = 1;
  bool all_to_all = false;  ///< inference only: exchange=a2a instead of gather
  bool experts_tp = false;  ///< with tp: every expert is divided over the ranks, instead of experts among them

  /// "ep=8,dp=2,pp=2,tp=1" in any order, keys that are 1 may be left out; for inference "exchange=a2a|gather" (with
  /// ep) and "experts=ep|tp" (with tp).
  static Layout parse(const std::string& text);
  std::string to_string() const;
  int world() const { return ep * dp * tp * pp; }
  Exchange exchange(Phase phase) const;
  /// Number of ranks that share the experts: whole ones, or with experts_tp a part of each.
  int expert_ranks(Phase phase) const { return exchange(phase) == Exchange::all_reduce ? tp : ep; }
  /// Ranks of an expert communicator: ep, or with tensor parallelism tp.
  int expert_group() const { return tp > 1 ? tp : ep; }
  /// Number of ranks among which whole experts are divided.
  int expert_divisor(Phase phase) const { return experts_tp ? 1 : expert_ranks(phase); }

  /// Throws Error where the model's experts, heads or layers cannot be divided so, with both numbers, and for forms
  /// that are not built yet (pp > 1; tp > 1 in training).
  void check(const ModelConfig& model, Phase phase) const;

  bool operator==(const Layout&) const = default;
};

}  // namespace farskip
