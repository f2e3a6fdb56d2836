#pragma once
// A model run by the executor on the inputs of a reference (exec/reference.h), on any number of expert-parallel ranks.

#include <string>

#include "exec/reference.h"
#include "layer/layout.h"
#include "transport/transport.h"

namespace farskip {

struct VerifyOptions {
  Layout layout;  ///< ep and dp; covers all ranks of the world
  /// As named_schedule spells it. A file is an order of the training step of batch a; everything else then runs in the
  /// reference order.
  std::string schedule = "reference";
  Tolerances tolerances;
};

struct Verification {
  std::string connectivity;
  std::string schedule;  ///< of the training step
  std::vector<Quantity> quantities;
  NamedTensors computed;  ///< every tensor of the reference; its inputs as they are
  bool ok() const;
};

/// Runs the Hugging Face folder `model`, with the connectivity of its config.json, in fp32: a training step of batch a
/// with reduced gradients (no weight changes), a forward pass of the others, and greedy decoding by full recomputation.
/// The sequences of a batch are divided over all ranks in order; a rank may get none. Called by all ranks, which get
/// the same result. Throws Error for a folder or a reference that cannot be read or do not fit each other.
Verification verify(const std::string& model, const std::string& reference, const VerifyOptions& options, World& world);

}  // namespace farskip
