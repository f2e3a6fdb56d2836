#pragma once
// --text FILE: where a text becomes tokens of a model.

#include <cstdint>
#include <string>
#include <vector>

#include "config/model_config.h"

namespace farskip::cli {

inline constexpr const char* text_help = "Text, or the prefix of data that `farskip prepare` made";

/// The first `max_tokens` tokens of a text for a model: of an indexed data set where `text` is the prefix of one (or
/// its .bin or .idx), else of the file by the tokenizer in the model's folder, or its bytes where there is none. Throws
/// Error where bytes are not the model's tokens: a vocabulary other than ByteTokenizer's.
std::vector<int32_t> text_tokens(const std::string& text, const std::string& folder, const ModelConfig& model,
                                 int64_t max_tokens);

}  // namespace farskip::cli
