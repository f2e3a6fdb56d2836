#include "model/parameter_set.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"

namespace farskip {

ParameterSet::ParameterSet(std::shared_ptr<const ParameterTable> table, const ParameterOptions& options)
    : table_(std::move(table)), options_(options) {
  const int64_t num_experts = table_->num_experts();
  FARSKIP_CHECK(options.expert_rank >= 0 && options.expert_rank < options.expert_ranks);
  if (num_experts % options.expert_ranks != 0) {
    fail("{} experts cannot be divided among {} expert ranks; choose a divisor", num_experts, options.expert_ranks);
  }
  num_local_experts_ = num_experts / options.expert_ranks;
  const auto zeros = [&](const std::vector<int64_t>& shape, at::ScalarType dtype) {
    return at::zeros(shape, at::TensorOptions().dtype(dtype).device(options_.device));
  };
  for (const auto& info : table_->parameters()) {
    const at::ScalarType dtype = info.fp32 ? at::kFloat : options.dtype;
    const auto shape = local_shape(info);
    const bool has_main = options.keep_main && !frozen(info.id);
    mains_.push_back(has_main ? zeros(shape, at::kFloat) : at::Tensor());
    values_.push_back(has_main && dtype == at::kFloat ? mains_.back() : zeros(shape, dtype));
  }
  grads_.resize(mains_.size());
  for (const auto& info : table_->buffers()) buffers_.push_back(zeros(info.shape, at::kFloat));
}

std::vector<int64_t> ParameterSet::local_shape(const ParameterInfo& info) const {
  std::vector<int64_t> shape = info.shape;
  if (info.expert) shape[0] = num_local_experts_;
  return shape;
}

const at::Tensor& ParameterSet::main(int id) const {
  FARSKIP_CHECK(mains_.at(id).defined(), "this set of parameters holds no master of " + (*table_)[id].name);
  return mains_[id];
}

at::ScalarType ParameterSet::stored_dtype() const {
  for (const auto& info : table_->parameters()) {
    if (!info.fp32 && stored(info.id).scalar_type() == at::kFloat) return at::kFloat;
  }
  return options_.dtype;
}

at::Tensor& ParameterSet::main_grad(int id) {
  at::Tensor& grad = grads_.at(id);
  if (!grad.defined()) {
    grad = at::zeros(local_shape((*table_)[id]), at::TensorOptions().dtype(at::kFloat).device(options_.device));
  }
  return grad;
}

void ParameterSet::zero_grad() {
  for (auto& grad : grads_) {
    if (grad.defined()) grad.zero_();
  }
}

void ParameterSet::update_values() {
  const at::NoGradGuard no_grad;
  for (int id = 0; id < size(); ++id) {
    if (mains_[id].defined() && !values_[id].is_same(mains_[id])) values_[id].copy_(mains_[id]);
  }
}

nn::ModelWeights ParameterSet::weights() const {
  nn::ModelWeights weights;
  weights.layers.resize(table_->num_layers());
  for (const auto& info : table_->parameters()) info.slot(weights) = {values_[info.id], info.id};
  for (size_t i = 0; i < buffers_.size(); ++i) {
    weights.layers[table_->buffers()[i].layer].moe.correction_bias = buffers_[i];
  }
  if (table_->tied()) weights.lm_head = weights.embed_tokens;
  return weights;
}

}  // namespace farskip
