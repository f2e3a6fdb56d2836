#pragma once
// Continuing a prompt with a model, one rank, by full recomputation of the sequence for every token: the plain form,
// for a first look at a trained model.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace farskip {

struct GenerateOptions {
  int64_t max_tokens = 200;
  double temperature = 0;  ///< 0: greedy
  uint64_t seed = 1234;
  int64_t context = 256;  ///< positions the model sees at most: those before it are dropped
};

/// Loads the Hugging Face folder `model` and continues `prompt` (ids below its vocabulary). Calls `on_token` with each
/// new id; stops at end_of_document. The function computed is the checkpoint's own connectivity.
std::vector<int32_t> generate(const std::string& model, const std::vector<int32_t>& prompt, int32_t end_of_document,
                              const GenerateOptions& options, const std::function<void(int32_t)>& on_token);

}  // namespace farskip
