#include "check_function.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace farskip::nn {
namespace {

struct Result {
  std::vector<at::Tensor> outputs, input_grads, param_grads;
};

bool contains(const std::vector<size_t>& list, size_t i) {
  return std::find(list.begin(), list.end(), i) != list.end();
}

std::vector<at::Tensor> cast(const std::vector<at::Tensor>& values, at::ScalarType type,
                             const std::vector<size_t>& wide) {
  std::vector<at::Tensor> out;
  for (size_t i = 0; i < values.size(); ++i) {
    const bool keep = type == at::kBFloat16 && contains(wide, i);
    out.push_back(values[i].detach().to(keep ? at::kFloat : type).clone());
  }
  return out;
}

void backward(const std::vector<at::Tensor>& outputs) {
  at::Tensor sum;  // one root: sum over outputs of <output, random>, so that every output gets a gradient of its own
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    const at::Tensor dy = random(outputs[i].sizes(), 1000 + i).to(at::kBFloat16).to(outputs[i].scalar_type());
    const at::Tensor term = (outputs[i] * dy).to(at::kDouble).sum();
    sum = sum.defined() ? sum + term : term;
  }
  sum.backward();
}

std::vector<at::Tensor> detached(const std::vector<at::Tensor>& values) {
  std::vector<at::Tensor> out;
  for (const auto& value : values) out.push_back(value.detach());
  return out;
}

Result run(const std::vector<at::Tensor>& input_values, const std::vector<at::Tensor>& param_values,
           const Function& function, bool deferred) {
  std::vector<at::Tensor> inputs;
  for (const auto& value : input_values) inputs.push_back(value.clone().requires_grad_());
  std::vector<Param> params;
  for (size_t i = 0; i < param_values.size(); ++i) {
    params.push_back({param_values[i].clone().requires_grad_(!deferred), static_cast<int>(i)});
  }
  WeightGradQueue queue;
  const auto outputs = function(inputs, params, deferred ? &queue : nullptr);
  backward(outputs);
  Result result{detached(outputs), {}, std::vector<at::Tensor>(params.size())};
  for (const auto& input : inputs) result.input_grads.push_back(input.grad());
  queue.drain([&](int id, const at::Tensor& grad) {
    EXPECT_FALSE(result.param_grads.at(id).defined()) << "two gradients for parameter " << id;
    EXPECT_FALSE(grad.requires_grad());
    result.param_grads[id] = grad;
  });
  EXPECT_TRUE(queue.empty());
  for (size_t i = 0; i < params.size() && !deferred; ++i) result.param_grads[i] = params[i].value.grad();
  return result;
}

Result run_reference(const std::vector<at::Tensor>& input_values, const std::vector<at::Tensor>& param_values,
                     const Reference& reference) {
  auto leaves = [](const std::vector<at::Tensor>& values) {
    std::vector<at::Tensor> out;
    for (const auto& value : values) out.push_back(value.to(at::kDouble).clone().requires_grad_());
    return out;
  };
  const auto inputs = leaves(input_values), params = leaves(param_values);
  const auto outputs = reference(inputs, params);
  backward(outputs);
  Result result{detached(outputs), {}, {}};
  for (const auto& input : inputs) result.input_grads.push_back(input.grad());
  for (const auto& param : params) result.param_grads.push_back(param.grad());
  return result;
}

void compare(const Result& a, const Result& b, const std::string& what,
             const std::function<void(const at::Tensor&, const at::Tensor&, const std::string&)>& check) {
  auto each = [&](const std::vector<at::Tensor>& left, const std::vector<at::Tensor>& right, const std::string& kind) {
    ASSERT_EQ(left.size(), right.size());
    for (size_t i = 0; i < left.size(); ++i) {
      const std::string name = what + ", " + kind + " " + std::to_string(i);
      ASSERT_EQ(left[i].defined(), right[i].defined()) << name;
      if (!left[i].defined()) continue;
      ASSERT_EQ(left[i].sizes(), right[i].sizes()) << name;
      check(left[i], right[i], name);
    }
  };
  each(a.outputs, b.outputs, "output");
  each(a.input_grads, b.input_grads, "gradient of input");
  each(a.param_grads, b.param_grads, "gradient of parameter");
}

void expect_same_bits(const at::Tensor& a, const at::Tensor& b, const std::string& name) {
  EXPECT_EQ(a.scalar_type(), b.scalar_type()) << name;
  EXPECT_TRUE(at::equal(a, b)) << name << " differs by " << relative_difference(a, b);
}

}  // namespace

at::Tensor random(at::IntArrayRef shape, uint64_t seed, double scale) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::kDouble).mul_(scale);
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0.0;
  const at::Tensor wide_a = a.to(at::kDouble), wide_b = b.to(at::kDouble);
  const double scale = wide_b.abs().max().item<double>();
  return (wide_a - wide_b).abs().max().item<double>() / (scale > 0 ? scale : 1.0);
}

void check_function(const Tensors& tensors, const Function& function, const Reference& reference,
                    const CheckOptions& options) {
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const std::string name = at::toString(type);
    const auto inputs = cast(tensors.inputs, type, options.wide_inputs);
    const auto params = cast(tensors.params, type, options.wide_params);
    const int num_threads = at::get_num_threads();
    at::set_num_threads(1);
    const Result deferred = run(inputs, params, function, true);
    const Result stock = run(inputs, params, function, false);
    at::set_num_threads(2);
    const Result two_threads = run(inputs, params, function, true);
    at::set_num_threads(num_threads);
    compare(deferred, stock, name + ", deferred against whole graph", expect_same_bits);
    if (options.same_bits_on_two_threads) {
      compare(deferred, two_threads, name + ", one against two threads",
              [&](const at::Tensor& a, const at::Tensor& b, const std::string& what) {
                if (type != at::kDouble || options.two_threads_fp64 == 0) return expect_same_bits(a, b, what);
                EXPECT_LE(relative_difference(b, a), options.two_threads_fp64) << what;
              });
    }

    const double tolerance = type == at::kDouble  ? 1e-6  // tables of angles are fp32
                             : type == at::kFloat ? options.tolerance_fp32
                                                  : options.tolerance_bf16;
    compare(deferred, run_reference(inputs, params, reference), name + " against fp64",
            [&](const at::Tensor& a, const at::Tensor& b, const std::string& what) {
              EXPECT_LE(relative_difference(a, b), tolerance) << what;
            });
  }
}

}  // namespace farskip::nn
