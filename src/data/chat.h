#pragma once
// Conversations as text for a model without special tokens.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/documents.h"

namespace farskip {

/// The document of {"messages": [{"role": ROLE, "content": TEXT}, ...]}. Every message becomes, in plain bytes,
///   <|im_start|>ROLE\nTEXT<|im_end|>\n
/// (ChatML), and the targets are TEXT<|im_end|> of the assistant's messages: a model learns to answer and to stop. ROLE
/// is system, user, assistant or tool. Throws Error with what is wrong (without the place) for anything else, also
/// where no message is the assistant's.
Document chat_document(const nlohmann::json& object);

}  // namespace farskip
