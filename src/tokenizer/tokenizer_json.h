#pragma once
// tokenizer.json of Hugging Face, and GPT-2's pair of a vocabulary and merges.

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace farskip {

/// The vocabulary and merges, which may be tens of MB, are taken out while the file is parsed; only the rest is held as
/// JSON. Truncation and padding, which a file may ask for, are the caller's matter and not done. Throws Error.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path, TokenizerConfig config);

/// `vocabulary` is a JSON object of ids by token, `merges` a text of two tokens a line, by rank, behind a line
/// #version.
std::unique_ptr<Tokenizer> load_gpt2(const std::string& vocabulary, const std::string& merges, TokenizerConfig config);

}  // namespace farskip
