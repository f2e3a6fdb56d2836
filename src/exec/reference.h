#pragma once
// Values that another program computed with a model, and the comparison with ours. A reference is one safetensors file
// (L layers, H hidden, V vocabulary, E experts; batch "a" is [B, S], "b" may be absent):
//
//   input_ids.a, .b         [B, S]       int64, without padding
//   logits.a, .b            [B, S, V]
//   loss.a, .b              [1]          next-token cross-entropy, mean over the predicted tokens
//   hidden.a.k, k = 0..L    [B, S, H]    whole residual stream in front of layer k; k = L: of the final norm
//   stream_y.a.k, k = 1..L  [B, S, H]    without the routed output of layer k-1; may be absent
//   routing.a.k             [B, S, E]    MoE layers: weight of every expert, 0 where not chosen
//   grad.TENSOR             as TENSOR    of loss.a, for every parameter, by its Hugging Face name
//   greedy.a, .b            [B, N]       int64, what greedy decoding without a cache appends

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/parameters.h"
#include "model/safetensors.h"

namespace farskip {

/// Tensors under the names of the format.
using NamedTensors = std::map<std::string, at::Tensor>;

/// Largest differences that pass: those of an fp32 implementation against an fp32 reference, some ten times what fp64
/// against fp32 gives on small models.
struct Tolerances {
  double logits = 5e-4;       ///< largest absolute difference
  double hidden = 5e-4;       ///< likewise, also of stream_y
  double routing = 1e-4;      ///< likewise, with the same experts chosen
  double loss = 2e-5;         ///< absolute
  double gradients = 2e-4;    ///< |d| / |g| of each tensor, Euclidean norms
  double bf16_logits = 3e-2;  ///< likewise of logits, where they are all that is compared
};

/// What is compared: everything computed, or, in bf16, the logits alone.
enum class Judge { all, logits };

/// One line of the result: tensors of one kind, judged by the worst.
struct Quantity {
  std::string name;     ///< "logits.a", "hidden.a", "grad"
  std::string measure;  ///< what `difference` is: "|d|", "|d|/|g|", "ids"
  double difference = 0;
  double tolerance = 0;
  int num_tensors = 0;
  std::string worst;        ///< the tensor with the largest difference, and what is wrong with it beside that
  bool same_choice = true;  ///< false: other experts were chosen
  bool ok() const { return same_choice && difference <= tolerance; }
};

class Reference {
 public:
  /// Throws Error, with the names, where tensors of the model or of the format are missing or not known to either.
  Reference(const std::string& path, const ModelConfig& config, const ParameterTable& table);

  /// Names of the batches: "a", or "a" and "b".
  const std::vector<std::string>& batches() const { return batches_; }
  at::Tensor tokens(const std::string& batch) const { return reader_.tensor("input_ids." + batch); }
  int64_t num_greedy(const std::string& batch) const { return reader_.spec("greedy." + batch).shape[1]; }
  std::vector<std::string> names() const { return reader_.names(); }
  bool contains(const std::string& name) const { return reader_.contains(name); }

  /// [T, K] int64: the experts of a MoE layer for the tokens of batch a, heaviest first. Throws Error where a token has
  /// not exactly `top_k`.
  at::Tensor experts(int64_t layer, int64_t top_k) const;

  /// Compares every computed tensor but the inputs, in the order of the list above. Throws Error for a tensor whose
  /// shape is not that of the computed one.
  std::vector<Quantity> compare(const NamedTensors& computed, const Tolerances& tolerances = {},
                                Judge judge = Judge::all) const;

 private:
  void check_inputs(const ModelConfig& config) const;

  SafetensorsReader reader_;
  std::vector<std::string> batches_;
};

/// Quantities as lines of text, each ending in "ok" or "FAIL".
std::string to_text(const std::vector<Quantity>& quantities);

}  // namespace farskip
