#pragma once
// A checkpoint as one rank of inference holds it: its share of the weights, in the dtype of config.json, or quantised
// while they are read, so that no more than one parameter is ever there in full precision.

#include <c10/core/ScalarType.h>

#include <functional>
#include <optional>
#include <string>

#include "config/model_config.h"
#include "layer/connectivity.h"
#include "model/parameters.h"
#include "model/tensor_share.h"
#include "nn/inference_weight.h"
#include "nn/weights.h"

namespace farskip {

struct InferenceModelOptions {
  std::optional<at::ScalarType> dtype = {};  ///< fp32 or bf16; absent: bf16 where config.json says so, else fp32
  /// Of all products but the router's; the embedding, and a head that is tied to it, stay as they are.
  nn::Quantization quantization = nn::Quantization::none;
  bool batch_invariant = false;                  ///< see nn::ProductOptions
  std::optional<std::string> connectivity = {};  ///< a spelling; absent: the checkpoint's own
  Layout layout = {};                            ///< over how many ranks the model is spread, and
  int rank = 0;                                  ///< which of them this is: it reads its own share only
  /// Called after each parameter with bytes read so far and in all.
  std::function<void(uint64_t done, uint64_t total)> on_progress = {};
};

class InferenceModel {
 public:
  /// Reads a Hugging Face folder, or the newest of a run's checkpoints. Throws Error as load_checkpoint does.
  explicit InferenceModel(const std::string& folder, const InferenceModelOptions& options = {});
  /// A model without a checkpoint, with the weights of initialize(): every layout has shares of the same model.
  InferenceModel(const ModelConfig& config, uint64_t seed, const InferenceModelOptions& options = {});

  /// The same weights under another connectivity.
  InferenceModel with(const Connectivity& connectivity) const;

  const ModelConfig& config() const { return config_; }
  const ModelConfig& local_config() const { return share_.local(); }  ///< as this rank's math sees it
  const Layout& layout() const { return layout_; }
  int rank() const { return rank_; }
  const TensorShare& share() const { return share_; }
  const Connectivity& connectivity() const { return connectivity_; }
  const nn::ModelWeights& weights() const { return weights_; }
  at::ScalarType dtype() const { return dtype_; }         ///< of activations
  int64_t weight_bytes() const { return weight_bytes_; }  ///< of this rank
  const std::string& folder() const { return folder_; }
  /// A sentence about tensors of the folder that are not used (LoadReport::unused); empty: there are none.
  const std::string& unused() const { return unused_; }

 private:
  void fill(const ParameterTable& table, const InferenceModelOptions& options,
            const std::function<at::Tensor(const ParameterInfo&, const TensorPiece&)>& read,
            const std::function<void()>& on_parameter);
  void place(const ParameterInfo& info, const at::Tensor& value, const InferenceModelOptions& options);

  std::string folder_, unused_;
  ModelConfig config_;
  Connectivity connectivity_;
  Layout layout_;
  int rank_;
  TensorShare share_;
  at::ScalarType dtype_;
  nn::ModelWeights weights_;
  int64_t weight_bytes_ = 0;
};

}  // namespace farskip
