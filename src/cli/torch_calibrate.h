#pragma once
// farskip convert --calibrate TEXT: weights for another connectivity, fitted in closed form on one rank or several.

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "cli/command.h"

namespace farskip::cli {

struct CalibrateArguments {
  std::string text;        ///< see text_tokens(); empty: no calibration
  int64_t num_tokens = 0;  ///< 0: calibration_tokens_per_channel for each channel of the hidden size
  int64_t seq_length = 256;
  std::string spool_folder, layout, transport = "auto";
  int num_ranks = 0;  ///< 0: one, or the layout's
};

/// Adds --calibrate and what goes with it.
void add_calibrate_options(CLI::App& command, CalibrateArguments& arguments);

/// The tensor that calibration has made of the one of this name, in fp32; undefined where it has not changed it.
using ChangedTensors = std::function<at::Tensor(const std::string& name)>;

/// Fits the weights of the folder `in` to `connectivity` and calls `use` with them, on rank 0. Prints the plan,
/// progress and what came of it. With several ranks the fitted weights lie in the folder `aside` meanwhile, so that no
/// rank holds the experts of another. Throws Error where that exists already, where predictions on held-out text do not
/// come nearer to those of the model as it is, for a text that is too short, and for ranks among which the experts
/// cannot be divided.
void with_calibrated_tensors(const std::string& in, const std::string& connectivity,
                             const CalibrateArguments& arguments, const std::string& aside,
                             const std::function<void(const ChangedTensors&)>& use);

}  // namespace farskip::cli
