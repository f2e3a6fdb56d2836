#pragma once
// Vocabularies of tiktoken: a line of base64 bytes and rank for each token.

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace farskip {

/// Of Kimi and Moonlight (tokenizer_class TikTokenTokenizer): the pattern is theirs, and behind the ranks come 256
/// special ids, spelled as added_tokens_decoder says or <|reserved_token_ID|>. Throws Error for other classes, whose
/// patterns the files do not say. (Their own code cuts texts of more than 400,000 characters, and white space of more
/// than 25,000, before it encodes; here they are encoded as a whole.)
std::unique_ptr<Tokenizer> load_tiktoken(const std::string& path, TokenizerConfig config);

}  // namespace farskip
