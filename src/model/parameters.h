#pragma once
// The table of a model's parameters: names, shapes and roles, declared once. Loading, saving, initialisation, gradient
// export, weight decay and the placing of weights all read this table.

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "layer/stage.h"
#include "nn/weights.h"

namespace farskip {

/// A tensor as Hugging Face names it, and the block of a parameter that it fills. A fused parameter has several: gate
/// above up, experts stacked.
struct TensorPiece {
  std::string name;  ///< "model.layers.3.mlp.experts.17.up_proj.weight"
  std::vector<int64_t> shape;
  int64_t expert = -1;  ///< index among all experts; -1: the parameter is not stacked
  int64_t row = 0;      ///< its first row in the parameter, or in that expert's matrix

  /// The block of `parameter` (its value, gradient, moment, ...), a contiguous view where the parameter is contiguous.
  /// `first_expert` is the first that a stacked parameter holds on this rank.
  at::Tensor of(const at::Tensor& parameter, int64_t first_expert = 0) const;
};

enum class Role : uint8_t {
  weight,
  output_weight,  ///< writes to the residual stream (o_proj, down_proj): initialised smaller
  norm,           ///< initialised with ones, no weight decay
  bias,           ///< initialised with zeros, no weight decay
};

/// How a parameter is divided among tensor-parallel ranks (each has all of what is not divided).
enum class Division : uint8_t {
  none,
  rows,         ///< outputs of a product, or a bias that belongs to them
  gate_and_up,  ///< rows of each half
  columns,      ///< inputs of a product, whose result is then a partial sum
  first_rank,   ///< a bias of such a product: added by one rank
};

struct ParameterInfo {
  int id = -1;                 ///< index in the table
  std::string name;            ///< the Hugging Face name; of a fused parameter a name in that style
  std::vector<int64_t> shape;  ///< of the whole; of experts [num_experts, ...]
  int64_t layer = -1;          ///< -1: embedding; num_layers: final norm and head
  Stage stage = Stage::embed;  ///< the stage that reads it
  Role role = Role::weight;
  Division division = Division::none;
  bool expert = false;              ///< its first dimension is divided among the expert ranks
  bool fp32 = false;                ///< computed with in fp32 whatever the compute dtype (the router)
  std::vector<TensorPiece> pieces;  ///< cover the parameter exactly, in the order of its memory
  /// Hugging Face's tensor that holds all pieces, one per expert, each transposed; empty: pieces are tensors
  /// themselves.
  std::string stack;
  std::function<nn::Param&(nn::ModelWeights&)> slot;

  bool decays() const { return role == Role::weight || role == Role::output_weight; }
  int64_t numel() const;
  /// Names and shapes of the Hugging Face tensors that hold it: its pieces, or their stack.
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors() const;
  /// Those tensors of a value, gradient, ... that has all experts; views.
  std::vector<std::pair<std::string, at::Tensor>> tensors_of(const at::Tensor& whole) const;
};

/// A tensor that belongs to the model but is not learned by gradients: the router's correction bias.
struct BufferInfo {
  std::string name;
  std::vector<int64_t> shape;
  int64_t layer = 0;
};

class ParameterTable {
 public:
  explicit ParameterTable(const ModelConfig& config);

  /// In the order of the model: embedding, layers, final norm, head. With tied embeddings there is no head of its own.
  const std::vector<ParameterInfo>& parameters() const { return parameters_; }
  const std::vector<BufferInfo>& buffers() const { return buffers_; }
  const ParameterInfo& operator[](int id) const { return parameters_.at(id); }
  int size() const { return static_cast<int>(parameters_.size()); }

  /// Ids of the parameters that a stage of a layer reads. The head of tied embeddings reads the embedding.
  std::vector<int> of_stage(int64_t layer, Stage stage) const;
  /// Elements of all parameters, over all expert ranks.
  int64_t num_parameters() const;

  int64_t num_layers() const { return num_layers_; }
  int64_t num_experts() const { return num_experts_; }
  bool tied() const { return tied_; }
  /// Whether a checkpoint may hold a tensor of this name that the model does not use: layers past its last
  /// (multi-token prediction), and tensors of other models beside it (images).
  bool carries(const std::string& tensor) const;
  /// ModelConfig::weight_block.
  const std::vector<int64_t>& weight_block() const { return weight_block_; }

 private:
  std::vector<ParameterInfo> parameters_;
  std::vector<BufferInfo> buffers_;
  int64_t num_layers_;
  int64_t num_experts_;
  bool tied_;
  std::string prefix_;  ///< TensorNames::prefix
  std::vector<int64_t> weight_block_;
};

}  // namespace farskip
