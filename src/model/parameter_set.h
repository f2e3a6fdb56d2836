#pragma once
// The tensors of a model's parameters on one rank: fp32 masters that the optimizer updates, values in the compute
// dtype, and fp32 gradients.

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "model/parameters.h"
#include "nn/weights.h"

namespace farskip {

struct ParameterOptions {
  at::ScalarType dtype = at::kFloat;  ///< of the values that stages compute with
  at::Device device = at::kCPU;
  int64_t expert_rank = 0;  ///< this rank holds experts [rank * E/ranks, (rank + 1) * E/ranks)
  int64_t expert_ranks = 1;
  bool keep_main = true;  ///< false (inference): no masters, the values are all there is
  /// By parameter: nothing changes it, so that it has neither master nor gradient, and nothing of it crosses ranks.
  /// Empty: none is.
  std::vector<bool> frozen = {};
};

class ParameterSet {
 public:
  /// All zeros. Throws Error where the experts cannot be divided by expert_ranks.
  ParameterSet(std::shared_ptr<const ParameterTable> table, const ParameterOptions& options);

  const ParameterTable& table() const { return *table_; }
  const ParameterOptions& options() const { return options_; }
  int size() const { return table_->size(); }

  /// The fp32 master of a parameter, as this rank holds it (experts: its own). REQUIRES: keep_main, not frozen, not
  /// released.
  const at::Tensor& main(int id) const;
  /// Forgets a master: others keep what is needed of it. stored() is the value from then on.
  void release_main(int id) { mains_.at(id).reset(); }
  /// What stages compute with: `dtype`, or fp32 for the router. The same memory as the master where the dtypes agree.
  const at::Tensor& value(int id) const { return values_.at(id); }
  /// What is read from and written to checkpoints: the master, or the value where there is none.
  const at::Tensor& stored(int id) const { return mains_.at(id).defined() ? mains_[id] : values_.at(id); }
  /// The widest dtype in which parameters are stored, but for routers, which are always in fp32.
  at::ScalarType stored_dtype() const;
  /// The fp32 gradient in the shape of the value, made of zeros when first asked for. Of frozen parameters nobody
  /// asks.
  at::Tensor& main_grad(int id);
  bool has_grad(int id) const { return grads_.at(id).defined(); }
  bool frozen(int id) const { return !options_.frozen.empty() && options_.frozen.at(id); }
  /// Sets the gradients made so far to zero.
  void zero_grad();
  /// Values from masters; to be called after masters have changed.
  void update_values();

  /// The fp32 buffer of table().buffers()[index].
  const at::Tensor& buffer(int index) const { return buffers_.at(index); }

  /// Experts that this rank holds of every MoE layer.
  int64_t num_local_experts() const { return num_local_experts_; }
  int64_t first_expert() const { return options_.expert_rank * num_local_experts_; }
  /// The rank that holds an expert.
  int64_t owner(int64_t expert) const { return expert / num_local_experts_; }
  bool holds(const TensorPiece& piece) const { return piece.expert < 0 || owner(piece.expert) == options_.expert_rank; }
  /// Shape of a parameter on this rank.
  std::vector<int64_t> local_shape(const ParameterInfo& info) const;

  /// The values, in their places, with their ids.
  nn::ModelWeights weights() const;

  /// Calls visit(piece, its block of tensor) for each piece of the parameter that this rank holds, in order; `tensor`
  /// is the parameter's value, gradient or moment. Exporting gradients is: name "grad." + piece.name.
  template <typename Visit>
  void for_each_piece(int id, const at::Tensor& tensor, Visit&& visit) const {
    for (const auto& piece : (*table_)[id].pieces) {
      if (holds(piece)) visit(piece, piece.of(tensor, first_expert()));
    }
  }

 private:
  std::shared_ptr<const ParameterTable> table_;
  ParameterOptions options_;
  int64_t num_local_experts_ = 0;
  std::vector<at::Tensor> mains_, values_, grads_, buffers_;  ///< one per parameter; one per buffer
};

}  // namespace farskip
