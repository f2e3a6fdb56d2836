#pragma once
// A model's text as the server needs it.

#include <string>

#include "cli/model_text.h"
#include "serve/served_model.h"

namespace farskip::cli {

/// Without names and end tokens. `chat_template`: a file with a template; empty: the tokenizer's own, if it has one.
/// `text` must outlive it. Throws Error where the file's template is not known; the tokenizer's own, if it is not
/// known, is left out with a warning.
serve::ServedModel served_model(const ModelText& text, const ModelConfig& config, const std::string& chat_template);

}  // namespace farskip::cli
