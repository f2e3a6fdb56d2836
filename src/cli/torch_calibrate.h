#pragma once
// farskip convert --calibrate TEXT: weights for another connectivity, fitted in closed form.

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace farskip::cli {

struct CalibrateArguments {
  std::string text;        ///< see text_tokens()
  int64_t num_tokens = 0;  ///< 0: calibration_tokens_per_channel for each channel of the hidden size
  int64_t seq_length = 256;
  std::string spool_folder;
};

/// The tensors of `model` (a folder) that calibration changes, by name, in fp32. Prints the plan, progress and what
/// came of it. Throws Error where predictions on held-out text do not come nearer to those of the model as it is, and
/// for a text that is too short.
std::map<std::string, at::Tensor> calibrated_tensors(const std::string& model, const std::string& connectivity,
                                                     const CalibrateArguments& arguments);

}  // namespace farskip::cli
