#pragma once
// Learning rates of single parameters: what a recipe freezes or scales, by the names of tensors.

#include <string>
#include <vector>

#include "config/train_config.h"
#include "model/parameter_set.h"
#include "sim/cost_model.h"

namespace farskip {

/// Whether `name` is of the form `pattern`, in which * stands for any characters (also none) and every other character
/// for itself.
bool matches_pattern(const std::string& pattern, const std::string& name);

/// The factor of each parameter's learning rate, by id; 0: frozen, no bit of it changes. A pattern of `freeze` or
/// `lr_multipliers` is held against the names that a checkpoint has (model.layers.3.self_attn.o_proj.weight); of
/// several that match the last counts, and `freeze` over all. Experts of a layer are one parameter, as are gate and up
/// projections. Throws Error for a pattern that no tensor matches, or a part of one parameter alone, and for a
/// multiplier that is no number >= 0.
std::vector<double> parameter_rates(const ParameterTable& table, const TrainConfig& config);

/// By parameter, whether its factor is 0.
std::vector<bool> frozen_parameters(const ParameterTable& table, const TrainConfig& config);

/// How many weights these are.
FrozenWeights frozen_weights(const ModelConfig& model, const TrainConfig& config);

}  // namespace farskip
