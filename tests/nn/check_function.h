#pragma once
// One check for every function of src/nn: it is run with deferred weight gradients and with weights under whole-graph
// autograd, which must agree bit for bit; on one and two threads, likewise (except for matrix products); and against an
// independent formula in fp64.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "nn/weights.h"

namespace farskip::nn {

struct Tensors {
  std::vector<at::Tensor> inputs, params;
};

/// The function under test. Outputs may be several; gradients are drawn at random for each.
using Function = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs,
                                                       const std::vector<Param>& params, WeightGradQueue* queue)>;
/// The same in plain operations on fp64.
using Reference = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs,
                                                        const std::vector<at::Tensor>& params)>;

struct CheckOptions {
  bool same_bits_on_two_threads =
      true;                      ///< false with matrix products: MKL divides small ones along the summed dimension
  double two_threads_fp64 = 0;   ///< fp64 on two threads may differ by so much of max|one thread|; 0: same bits
  double tolerance_fp32 = 2e-5;  ///< of max|difference| / max|reference|
  double tolerance_bf16 = 4e-2;
  std::vector<size_t> wide_params{};  ///< parameters that stay fp32 with bf16 activations
  std::vector<size_t> wide_inputs{};  ///< inputs likewise
};

/// Values from a normal distribution, the same on every call with the same seed.
at::Tensor random(at::IntArrayRef shape, uint64_t seed, double scale = 1.0);

/// For functions that contain matrix products.
inline CheckOptions with_products() { return {.same_bits_on_two_threads = false}; }

/// Runs all checks in fp64, fp32 and bf16.
void check_function(const Tensors& tensors, const Function& function, const Reference& reference,
                    const CheckOptions& options = {});

/// max|a - b| / max|b| in fp64.
double relative_difference(const at::Tensor& a, const at::Tensor& b);

#define EXPECT_BITS_EQUAL(a, b) EXPECT_TRUE(at::equal((a), (b)))

}  // namespace farskip::nn
