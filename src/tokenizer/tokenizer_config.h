#pragma once
// tokenizer_config.json: what a vocabulary's own file does not say.

#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"

namespace farskip {

struct TokenizerConfig {
  std::string path;  ///< of tokenizer_config.json; empty where there is none
  std::string bos_token, eos_token, pad_token, unk_token;
  std::string tokenizer_class;
  std::vector<AddedToken> added_tokens;  ///< added_tokens_decoder, by id
  bool add_bos_token = false, add_eos_token = false;
  std::string chat_template;  ///< Jinja; empty where there is none
};

/// Of a model's folder; chat_template.jinja there comes before the key. All is empty where neither file is. Throws
/// Error for damaged files.
TokenizerConfig read_tokenizer_config(const std::string& folder);

}  // namespace farskip
