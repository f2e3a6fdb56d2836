#include "nn/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/deferred.h"
#include "nn/inference_weight.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

struct Linear : torch::autograd::Function<Linear> {
  /// `input` is x and how it is made again.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, WeightGradQueue* queue, int weight_id, int bias_id,
                            const Input* input) {
    ctx->save_for_backward({keep_input(ctx, *input, queue), weight});
    save_target(ctx, "weight", queue, weight_id);
    save_target(ctx, "bias", queue, bias_id);
    ctx->saved_data["has_bias"] = bias.has_value();
    if (!tiles::better_than_library(x)) return at::linear(x, weight, bias);
    at::Tensor y = tiles::product(x.reshape({-1, x.size(-1)}), weight.t());
    if (bias) y.add_(*bias);
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return y.view(shape);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& weight_OI = saved[1];
    const at::Tensor dy_TO = grads[0].reshape({-1, weight_OI.size(0)});
    at::Tensor dx;
    if (ctx->needs_input_grad(0)) dx = tiles::product(dy_TO, weight_OI).view(ctx->saved_data["sizes"].toIntVector());
    auto compute = [x = kept_input(ctx, saved[0]), dy_TO] {
      const at::Tensor x_TI = x();
      return tiles::product(dy_TO.t(), x_TI.reshape({-1, x_TI.size(-1)}));
    };
    at::Tensor dweight = weight_grad(ctx, "weight", 1, std::move(compute));
    at::Tensor dbias;
    if (ctx->saved_data["has_bias"].toBool()) dbias = weight_grad(ctx, "bias", 2, [dy_TO] { return dy_TO.sum(0); });
    return {dx, dweight, dbias, {}, {}, {}, {}};
  }
};

struct Embedding : torch::autograd::Function<Embedding> {
  /// `anchor` is an empty tensor that requires grad where a queue wants the gradient of the table.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& anchor, const at::Tensor& table,
                            const at::Tensor& ids, WeightGradQueue* queue, int id) {
    ctx->save_for_backward({ids});
    save_target(ctx, "table", queue, id);
    ctx->saved_data["rows"] = table.size(0);
    return at::embedding(table, ids);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor ids = ctx->get_saved_variables()[0];
    const at::Tensor dy = grads[0];
    const int64_t num_rows = ctx->saved_data["rows"].toInt();
    auto compute = [ids, dy, num_rows] {
      return at::embedding_dense_backward(dy.to(wide_type(dy)), ids, num_rows, -1, false).to(dy.scalar_type());
    };
    return {at::Tensor(), weight_grad(ctx, "table", 1, compute), at::Tensor(), {}, {}};
  }
};

}  // namespace

at::Tensor linear(const Input& x, const Param& weight, const Param& bias, WeightGradQueue* queue) {
  if (weight.prepared) return weight.prepared->weight.multiply(x.value, bias.value, weight.prepared->options);
  const auto optional_bias = bias.defined() ? std::optional(bias.value) : std::nullopt;
  const bool whole_graph = weight.value.requires_grad();
  if (whole_graph && !tiles::better_than_library(x.value)) return at::linear(x.value, weight.value, optional_bias);
  if (!whole_graph) check_reaches_backward(x.value, queue);
  return apply<Linear>(x.value, weight.value, optional_bias, queue, weight.id, bias.id, &x);
}

at::Tensor embedding(const at::Tensor& ids, const Param& table, WeightGradQueue* queue) {
  if (ids.numel() > 0 && ids.device().is_cpu()) {
    const auto [low, high] = at::aminmax(ids);
    if (low.item<int64_t>() < 0 || high.item<int64_t>() >= table.value.size(0)) {
      fail(
          "token ids run from {} to {}, but the vocabulary has {} rows (0 to {}): was the text tokenized for another "
          "model?",
          low.item<int64_t>(), high.item<int64_t>(), table.value.size(0), table.value.size(0) - 1);
    }
  }
  const bool anchored = queue != nullptr && !table.value.requires_grad();
  const at::Tensor anchor = at::empty({0}, table.value.options()).set_requires_grad(anchored);
  return apply<Embedding>(anchor, table.value, ids, queue, table.id);
}

Input activation(const at::Tensor& gate_up, bool recompute) {
  if (!recompute) return swiglu(gate_up);
  return {swiglu(gate_up), [kept = gate_up.detach()] { return swiglu(kept); }};
}

at::Tensor feed_forward(const Input& x, const FeedForwardWeights& weights, WeightGradQueue* queue,
                        bool recompute_activation) {
  return linear(activation(linear(x, weights.gate_up, queue), recompute_activation), weights.down, queue);
}

}  // namespace farskip::nn
