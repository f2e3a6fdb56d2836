#pragma once
// A conversation with a model at the terminal.

#include <string>
#include <vector>

#include "cli/model_text.h"
#include "infer/generate.h"

namespace farskip::cli {

struct ChatOptions {
  std::string system;
  std::vector<std::string> stops;
  GenerateOptions generate;
};

/// Reads lines from standard input until it ends; answers stream to standard output. What the conversation and the
/// cache have in common is not computed again. Throws Error where the model has no chat template that is known.
void chat(const InferenceModel& model, const ModelText& text, const ChatOptions& options);

/// "prefill 12 tokens at 340 tokens/s, decode 199 tokens at 52.1 tokens/s".
std::string describe_speed(const GenerateReport& report);

}  // namespace farskip::cli
