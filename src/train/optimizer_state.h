#pragma once
// Optimizer state in checkpoints. A tensor of a checkpoint is named KIND.NAME, where KIND is exp_avg, exp_avg_sq or
// main (fp32 masters, where the weights beside it are rounded) and NAME the Hugging Face name of what it belongs to, in
// that shape; or KIND.NAME[BEGIN:END], flat, where ranks keep parts of it. Whatever way it was shared out when it was
// saved, any rank finds what it needs.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/parameter_shards.h"
#include "model/safetensors.h"

namespace farskip {

/// A run of elements that belong to one slice and to one tensor of the checkpoint.
struct StateRun {
  size_t slice = 0;  ///< index in the list of slices
  int64_t at = 0;    ///< first element within the slice
  int64_t size = 0;
  int parameter = -1;
  size_t piece = 0;            ///< index in the parameter's pieces
  int64_t begin = 0;           ///< first element within the tensor
  std::string tensor;          ///< NAME
  std::vector<int64_t> shape;  ///< of the whole tensor

  bool whole() const { return size == c10::multiply_integers(shape); }
  std::string name(const std::string& kind) const;
  std::vector<int64_t> stored_shape() const { return whole() ? shape : std::vector<int64_t>{size}; }
};

/// What slices hold on a rank with `num_experts` experts from `first_expert` on.
std::vector<StateRun> state_runs(const ParameterTable& table, const std::vector<ParameterSlice>& slices,
                                 int64_t first_expert, int64_t num_experts);

class StateReader {
 public:
  /// `source`: a .safetensors file or an index of several.
  explicit StateReader(const std::string& source);

  bool contains(const std::string& kind, const std::string& tensor) const;
  /// fp32 [run.size]. Throws Error where a part of it is missing.
  at::Tensor read(const std::string& kind, const StateRun& run) const;
  const SafetensorsReader& reader() const { return reader_; }

 private:
  struct Part {
    int64_t begin, end;
    std::string name;
  };
  SafetensorsReader reader_;
  std::map<std::string, std::vector<Part>> parts_;  ///< by KIND.NAME
};

}  // namespace farskip
