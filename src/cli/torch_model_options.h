#pragma once
// Options of the commands that run a model for its text: which model, and how it is held.

#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/model_text.h"
#include "infer/inference_model.h"

namespace farskip::cli {

struct ModelArguments {
  std::string model, tokenizer, dtype, quantization = "none", connectivity;
  bool batch_invariant = false;
};

/// Adds the model itself and --tokenizer, --dtype, --quantization, --connectivity, --batch-invariant.
void add_model_options(CLI::App& command, ModelArguments& arguments);

/// The share of `rank`; rank 0 shows progress and says on standard error what was loaded.
InferenceModel load_model(const ModelArguments& arguments, const Layout& layout = {}, int rank = 0);

/// Ids that end a text: those of the model's folder and of its vocabulary.
std::vector<int32_t> all_end_tokens(const InferenceModel& model, const ModelText& text);

}  // namespace farskip::cli
