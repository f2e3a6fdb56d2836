#pragma once
// How the custom autograd Functions of this folder treat weights. A weight is used in one of three ways:
//   requires_grad()          its gradient flows through the graph as usual (one plain model under whole-graph
//   autograd); otherwise, with a queue  backward pushes {param id, closure} and the caller decides when the product is
//   computed; otherwise, no queue      no gradient of the weight is wanted (inference).
// Both kinds of gradient run the same operations on the same operands, so they are equal bit for bit.

#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <string>
#include <utility>

#include "base/error.h"
#include "nn/weights.h"

namespace farskip::nn {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// The type in which sums over activations are taken: fp32 for bf16, otherwise the type itself.
inline at::ScalarType wide_type(const at::Tensor& x) { return at::toOpMathType(x.scalar_type()); }

/// REQUIRES, wherever a queue is given: x is part of the graph, or backward would never reach the Function.
inline void check_reaches_backward(const at::Tensor& x, const WeightGradQueue* queue) {
  FARSKIP_CHECK(queue == nullptr || !at::GradMode::is_enabled() || x.requires_grad(),
                "a stage that queues weight gradients needs an input with requires_grad");
}

/// Remembers where the gradient of the weight `name` goes. The queue outlives the segment.
inline void save_target(AutogradContext* ctx, const std::string& name, WeightGradQueue* queue, int id) {
  ctx->saved_data["queue"] = static_cast<int64_t>(reinterpret_cast<intptr_t>(queue));
  ctx->saved_data[name] = static_cast<int64_t>(id);
}

/// Keeps what the weight's gradient reads: tensor number 0 of save_for_backward(), undefined where it is made again.
inline at::Tensor keep_input(AutogradContext* ctx, const Input& x, WeightGradQueue* queue) {
  const int64_t place = queue != nullptr ? queue->keep(x.again) : -1;
  ctx->saved_data["again"] = place;
  ctx->saved_data["sizes"] = x.value.sizes().vec();
  return place < 0 ? x.value : at::Tensor();
}

/// In backward: how to get at it.
inline std::function<at::Tensor()> kept_input(AutogradContext* ctx, const at::Tensor& saved) {
  const int64_t place = ctx->saved_data["again"].toInt();
  if (place < 0) return [x = saved.detach()] { return x; };
  return reinterpret_cast<WeightGradQueue*>(static_cast<intptr_t>(ctx->saved_data["queue"].toInt()))->take(place);
}

/// Called in backward for the weight that was tensor number `input` of apply(): returns its gradient where the graph
/// wants it, else leaves `compute` in the queue. `compute` must capture detached tensors only.
inline at::Tensor weight_grad(AutogradContext* ctx, const std::string& name, size_t input,
                              std::function<at::Tensor()> compute) {
  if (ctx->needs_input_grad(input)) return compute();
  auto* queue = reinterpret_cast<WeightGradQueue*>(static_cast<intptr_t>(ctx->saved_data["queue"].toInt()));
  if (queue != nullptr) queue->push(static_cast<int>(ctx->saved_data[name].toInt()), std::move(compute));
  return {};
}

/// F::apply(), without what it does for a graph where none is being made: that costs as much as a small product.
template <typename F, typename... Arguments>
at::Tensor apply(Arguments&&... arguments) {
  if (at::GradMode::is_enabled()) return F::apply(std::forward<Arguments>(arguments)...);
  AutogradContext nothing;
  return F::forward(&nothing, std::forward<Arguments>(arguments)...);
}

}  // namespace farskip::nn
