#pragma once
// Initial values of a model to be trained from scratch.

#include "model/parameter_set.h"

namespace farskip {

struct InitOptions {
  uint64_t seed = 1234;
  double std = 0.02;  ///< Megatron's init_method_std
};

/// Megatron's initialisation: weights normal(0, std); those that write to the residual stream (o_proj, down_proj, also
/// of experts) normal(0, std / sqrt(2 * num_layers)); norms one; biases and correction biases zero.
///
/// Each element is a function of (seed, its Hugging Face tensor's name, its index in that tensor) alone, by the
/// counter-based generator Philox-4x32-10 (Salmon et al., SC 2011). So any number of expert ranks begins with the same
/// model, and no rank makes more than it holds.
void initialize(ParameterSet& parameters, const InitOptions& options);

/// A piece of a parameter as initialize() makes it, in fp32.
at::Tensor initial_piece(const ParameterInfo& info, const TensorPiece& piece, int64_t num_layers,
                         const InitOptions& options);

/// The first `count` normal numbers with standard deviation `std` of the sequence that belongs to (seed, name).
void fill_normal(float* out, int64_t count, uint64_t seed, const std::string& name, double std);

}  // namespace farskip
