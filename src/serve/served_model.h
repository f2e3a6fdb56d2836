#pragma once
// What the server knows of its model: names, limits, and text as tokens and back.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tokenizer/chat_template.h"

namespace farskip::serve {

/// Its functions are called from many threads at once.
struct ServedModel {
  std::vector<std::string> names;  ///< at least one; the first is the one in answers
  int64_t vocab_size = 0;
  std::vector<int32_t> end_tokens;  ///< each ends a text, unless ignore_eos
  /// `add_special`: with those tokens that the tokenizer puts around a text.
  std::function<std::vector<int32_t>(const std::string& text, bool add_special)> encode;
  /// Turns ids that come one by one into text, special tokens left out; called with -1 it gives what is left. Pieces
  /// may end within a character.
  std::function<std::function<std::string(int32_t)>()> decoder;
  /// The bytes a token stands for, perhaps a part of a character; special ones too.
  std::function<std::string(int32_t)> token_bytes;
  /// A conversation as the text that the model answers. Throws Error for roles, or an order of them, that the template
  /// does not allow. Empty where the model has no chat template.
  std::function<std::string(std::span<const ChatMessage>)> render_chat;
};

}  // namespace farskip::serve
