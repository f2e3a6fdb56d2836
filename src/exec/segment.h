#pragma once
// A segment: one stage's piece of the autograd graph, cut off at its inputs, to be differentiated alone.

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>  // of Edge, whose own header leaves Node incomplete

#include <functional>
#include <vector>

#include "nn/weights.h"

namespace farskip {

class Segment {
 public:
  using Forward = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs, nn::WeightGradQueue*)>;

  /// Runs `forward` on copies of `inputs` that share their memory and are cut off from whatever made them; those
  /// flagged in `differentiable` get gradients. Returns the outputs, cut off as well. Keeps the edges of the graph and
  /// no tensor of its own: what backward does not need is freed with the caller's last reference.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs, const std::vector<bool>& differentiable,
                              const Forward& forward);

  /// Gradients of the inputs, undefined where there is none, from those of the outputs (undefined: the output does not
  /// take part). May be called once. Weight gradients are left in queue(). On the calling thread, touches no .grad.
  std::vector<at::Tensor> backward(const std::vector<at::Tensor>& output_grads);

  nn::WeightGradQueue& queue() { return queue_; }

 private:
  std::vector<torch::autograd::Edge> inputs_;   ///< no function: not differentiable
  std::vector<torch::autograd::Edge> outputs_;  ///< no function: not in the graph
  nn::WeightGradQueue queue_;
};

}  // namespace farskip
