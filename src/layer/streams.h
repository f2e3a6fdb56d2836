#pragma once
// The residual stream as a sum of named contributions, and the views of it that readers get. A view is the full
// expression with the missed leaves left out; no view is ever obtained by subtraction. The order of additions is the
// contract of docs/numerics:
//   h_k     = x_k + attn_k
//   x_{k+1} = h_k + (routed_k + shared_k)     x_{k+1} = h_k + dense_k

#include <map>
#include <tuple>
#include <vector>

#include "layer/stage_graph.h"

namespace farskip {

/// Which contributions a reader includes: routed outputs of layers <= routed, attention outputs of layers <= attention.
/// Shared experts and dense feed-forwards are always included.
struct Reach {
  int routed;
  int attention;
};

/// Reach of the attention and the feed-forward of layer k.
Reach attention_reach(const Skip& skip, int k);
Reach feed_forward_reach(const Skip& skip, int k);

enum class Contribution : uint8_t { attention, routed, shared, dense };
const char* to_string(Contribution contribution);
/// What layer k adds to the stream, in the order of the contract.
std::vector<Contribution> contributions(const ModelConfig& model, int k);

/// Contributions of one layer that always enter the stream together, as one value.
struct Leaf {
  std::vector<Contribution> parts;
  ValueId value = no_value;
  bool is_attention() const;  ///< attention's output alone
};

/// Partitions the contributions of layer k: two stand together if every reader includes both or neither. That is
/// exactly when their partial sums may share one all-reduce.
std::vector<std::vector<Contribution>> shared_reductions(const ModelConfig& model, const Connectivity& connectivity,
                                                         int k);

/// Builds the views of one microbatch, sharing every sum that is needed twice.
class Streams {
 public:
  Streams(StageGraph& graph, const ModelConfig& model, std::string prefix, ValueId embedding);

  /// Registers what layer k adds to the stream.
  void add_leaf(int k, Leaf leaf) { leaves_[k].push_back(std::move(leaf)); }

  /// The stream before layer k (after layer k-1), within reach; sums not yet computed are appended to `sums`.
  ValueId before(int k, Reach reach, std::vector<Sum>& sums);
  /// The stream between attention and feed-forward of layer k: before(k) plus attn_k, if that is within reach.
  ValueId between(int k, Reach reach, std::vector<Sum>& sums);

 private:
  ValueId add(ValueId left, ValueId right, std::string name, std::vector<Sum>& sums);
  Reach canonical(int last_layer, Reach reach) const;
  std::string view_name(char letter, int k, Reach reach, Reach whole) const;

  StageGraph& graph_;
  const ModelConfig& model_;
  std::string prefix_;
  std::vector<std::vector<Leaf>> leaves_;
  std::map<std::tuple<int, int, int>, ValueId> before_, between_;
  std::map<std::pair<ValueId, ValueId>, ValueId> sums_;
  ValueId embedding_;
};

}  // namespace farskip
