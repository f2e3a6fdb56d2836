#pragma once
// Models of SentencePiece, run by its own library.

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace farskip {

/// tokenizer.model, as Mixtral has it. The model's control symbols (<s>, </s>) and the tokens that
/// tokenizer_config.json adds are found in a text first; what stands between them is encoded each for itself.
/// add_special puts the beginning's token in front unless add_bos_token is false. Throws Error for a damaged file.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path, TokenizerConfig config);

}  // namespace farskip
