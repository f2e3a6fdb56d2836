#include "tokenizer/chat_template.h"

#include "base/error.h"
#include "base/sha256.h"

namespace farskip {

std::string chat_template_fingerprint(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(text.ends_with("\r\n") ? 2 : 1);
  Sha256 sha;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool new_line = text.substr(i, 2) == "\\n" || text.substr(i, 2) == "\r\n";
    sha.update(new_line ? "\n" : text.data() + i, 1);
    i += new_line;
  }
  return sha.hex();
}

ChatTemplate ChatTemplate::of(std::string_view text, const std::string& where) {
  if (text.empty())
    fail("{} names no chat template (chat_template of tokenizer_config.json, or chat_template.jinja)", where);
  return with_fingerprint(chat_template_fingerprint(text), where);
}

ChatTemplate ChatTemplate::with_fingerprint(const std::string& fingerprint, const std::string& where) {
  std::string names;
  for (const auto& known : known_chat_templates()) {
    if (fingerprint == known.fingerprint) return {known.name, known.render};
    if (names.find(known.name) == std::string::npos) {  // a template may have several texts
      names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
    }
  }
  fail("{}: its chat template (SHA-256 {}) is not known, and templates are not guessed; known are those of {}", where,
       fingerprint, names);
}

ChatText ChatTemplate::render(std::span<const ChatMessage> messages, const TokenizerConfig& config,
                              bool add_generation_prompt) const {
  if (messages.empty()) fail("a conversation without messages");
  Writer out;
  render_(messages, config, add_generation_prompt, out);
  return std::move(out.result);
}

}  // namespace farskip
