#pragma once
// What one rank of an inference layout holds of a model's parameters: whole experts or parts of them, heads and
// feed-forward columns. Declared by ParameterInfo::division; nothing here knows a parameter's name.

#include <ATen/core/Tensor.h>

#include <functional>

#include "layer/layout.h"
#include "model/parameters.h"

namespace farskip {

class TensorShare {
 public:
  /// Throws Error as Layout::check. `rank` is the rank in the whole run.
  TensorShare(const ModelConfig& config, const Layout& layout, int rank);

  /// The model as this rank's math sees it: its own heads.
  const ModelConfig& local() const { return local_; }
  int tp_rank() const { return rank_; }
  int expert_rank() const { return expert_rank_; }

  /// False for what another rank has alone.
  bool holds(const ParameterInfo& info) const;
  /// Shape of this rank's share.
  std::vector<int64_t> shape(const ParameterInfo& info) const;
  /// Fills `into`, of that shape, from pieces as `read` returns them (whole, [rows, columns] or [rows]); only pieces of
  /// which this rank holds something are asked for, one at a time.
  void fill(const ParameterInfo& info, const at::Tensor& into,
            const std::function<at::Tensor(const TensorPiece&)>& read) const;

 private:
  /// Rows [from, from + num) of the whole are rows [to, to + num) of the share.
  struct Rows {
    int64_t from, num, to;
  };
  Division division(const ParameterInfo& info) const;
  std::vector<Rows> rows(const ParameterInfo& info) const;

  ModelConfig local_;
  int num_parts_, rank_;
  bool experts_divided_;
  int64_t num_experts_, first_expert_;
  int expert_rank_;
};

}  // namespace farskip
