#pragma once
// What `farskip inspect` says about a model's shape: everything that follows from config.json alone.

#include <string>

#include "config/model_config.h"
#include "layer/connectivity.h"

namespace farskip::cli {

struct Inspected {
  std::string name;    ///< as given on the command line
  std::string layout;  ///< of the simulated run; empty: ep=8, or the most ranks below that divide the experts
  std::string machine = "mi325x";
  ModelConfig model;
  Connectivity connectivity;
};

/// Parameters, layers, what each reader misses, memory of a rank at each dtype and layout, and what stands under each
/// collective of a layer in the paper's order, simulated.
std::string inspect_text(const Inspected& inspected);

}  // namespace farskip::cli
