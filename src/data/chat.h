#pragma once
// Conversations as text: by a model's chat template, or for a model without special tokens.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/documents.h"
#include "tokenizer/chat_template.h"

namespace farskip {

/// A model's way to write conversations.
struct ChatFormat {
  ChatTemplate chat_template;
  TokenizerConfig config;
};

/// The document of {"messages": [{"role": ROLE, "content": TEXT}, ...]}. Where `format` is null, every message becomes,
/// in plain bytes,
///   <|im_start|>ROLE\nTEXT<|im_end|>\n
/// (ChatML), and the targets are TEXT<|im_end|> of the assistant's messages: a model learns to answer and to stop. ROLE
/// is system, user, assistant or tool. Throws Error with what is wrong (without the place) for anything else, also
/// where no message is the assistant's.
Document chat_document(const nlohmann::json& object, const ChatFormat* format = nullptr);

}  // namespace farskip
