#pragma once
// A model run by the executor on the inputs of a reference (exec/reference.h), on any number of expert-parallel ranks.

#include <string>

#include "exec/reference.h"
#include "layer/layout.h"
#include "transport/transport.h"

namespace farskip {

struct VerifyOptions {
  Layout layout = {};  ///< ep and dp; covers all ranks of the world
  /// As named_schedule spells it. A file is an order of the training step of batch a; everything else then runs in the
  /// reference order.
  std::string schedule = "reference";
  at::ScalarType dtype = at::kFloat;  ///< or bf16, where only logits are judged; that needs reference_routing
  /// Experts are chosen as the reference says instead of by the model's routers; what the reference says nothing about
  /// (other batches than a, decoding) is left out.
  bool reference_routing = false;
  Tolerances tolerances = {};
};

struct Verification {
  std::string connectivity;
  std::string schedule;  ///< of the training step
  std::string unused;    ///< LoadReport::unused of the folder
  std::vector<Quantity> quantities;
  NamedTensors computed;  ///< every tensor of the reference (but what is left out); its inputs as they are
  bool ok() const;
};

/// Runs the Hugging Face folder `model`, with the connectivity of its config.json: a training step of batch a with
/// reduced gradients (no weight changes), a forward pass of the others, and greedy decoding by full recomputation.
/// The sequences of a batch are divided over all ranks in order; a rank may get none. Called by all ranks, which get
/// the same result. Throws Error for a folder or a reference that cannot be read or do not fit each other.
Verification verify(const std::string& model, const std::string& reference, const VerifyOptions& options, World& world);

}  // namespace farskip
