#include "exec/segment.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <type_traits>

#include "base/error.h"

namespace farskip {

using namespace torch::autograd;

namespace {

/// Where a segment's graph begins. Unlike the accumulator of a leaf it holds no tensor.
struct SegmentInput : torch::autograd::Node {
  variable_list apply(variable_list&& grads) override { return std::move(grads); }
};

/// Graph nodes are held by std::shared_ptr up to libtorch 2.12 and by c10::intrusive_ptr since.
template <typename Pointer>
Pointer make_segment_input() {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>) {
    return std::make_shared<SegmentInput>();
  } else {
    return c10::make_intrusive<SegmentInput>();
  }
}

}  // namespace

std::vector<at::Tensor> Segment::run(const std::vector<at::Tensor>& inputs, const std::vector<bool>& differentiable,
                                     const Forward& forward) {
  at::AutoGradMode on(true);  // the mode is per thread
  std::vector<at::Tensor> cut;
  for (size_t i = 0; i < inputs.size(); ++i) {
    at::Tensor input = inputs[i].defined() ? inputs[i].detach() : inputs[i];  // a plan is no tensor
    Edge edge;
    if (input.defined() && differentiable[i]) {
      const auto node = make_segment_input<decltype(Edge::function)>();
      edge = Edge(node, node->add_input_metadata(input));
      impl::set_gradient_edge(input, edge);
    }
    inputs_.push_back(edge);
    cut.push_back(std::move(input));
  }
  std::vector<at::Tensor> outputs = forward(cut, &queue_);
  for (at::Tensor& output : outputs) {
    outputs_.push_back(output.requires_grad() ? impl::gradient_edge(output) : Edge{});
    output = output.detach();
  }
  return outputs;
}

std::vector<at::Tensor> Segment::backward(const std::vector<at::Tensor>& output_grads) {
  edge_list roots, targets;
  variable_list grads;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    if (i >= output_grads.size() || !output_grads[i].defined()) continue;
    FARSKIP_CHECK(outputs_[i].is_valid(), "a gradient for an output outside the graph");
    roots.push_back(outputs_[i]);
    grads.push_back(output_grads[i]);
  }
  for (const Edge& edge : inputs_) {
    if (edge.is_valid()) targets.push_back(edge);
  }
  FARSKIP_CHECK(!roots.empty());
  // Without inputs (the embedding) only the queue is wanted, and the engine insists on a place to put gradients.
  const auto found = Engine::get_default_engine().execute(roots, grads, /*keep_graph=*/false, /*create_graph=*/false,
                                                          /*accumulate_grad=*/targets.empty(), targets);
  std::vector<at::Tensor> result(inputs_.size());
  size_t next = 0;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (inputs_[i].is_valid()) result[i] = found[next++];
  }
  inputs_.clear();
  outputs_.clear();
  return result;
}

}  // namespace farskip
