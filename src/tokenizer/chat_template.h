#pragma once
// Conversations as the text that a model was trained on: the chat templates of the families, each written out here,
// since there is no Jinja. A template is known by its fingerprint; none is guessed.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer_config.h"

namespace farskip {

struct ChatMessage {
  std::string role;  ///< system, user, assistant, tool
  std::string content;
};

/// A rendered conversation.
struct ChatText {
  std::string text;
  std::string targets;  ///< [bytes of text] 1 where the model is to learn: what an assistant says, and that it ends
};

/// SHA-256 of a template's text, in which the escape \n and the pair \r\n are new lines and one at the end is left out:
/// such texts render alike.
std::string chat_template_fingerprint(std::string_view text);

class ChatTemplate {
 public:
  /// The template with this text (the chat_template of tokenizer_config.json). `where` begins errors. Throws Error for
  /// an unknown one, with the names of those that are known.
  static ChatTemplate of(std::string_view text, const std::string& where);
  static ChatTemplate with_fingerprint(const std::string& fingerprint, const std::string& where);

  const std::string& name() const { return name_; }
  /// What transformers' apply_chat_template(messages, tokenize=False) gives, without tools. Begin and end of a text are
  /// spelled as `config` says. Throws Error for roles, or an order of them, that the template does not allow.
  ChatText render(std::span<const ChatMessage> messages, const TokenizerConfig& config,
                  bool add_generation_prompt) const;

  /// What a renderer writes to.
  class Writer;
  using Render = void (*)(std::span<const ChatMessage> messages, const TokenizerConfig& config,
                          bool add_generation_prompt, Writer& out);

 private:
  ChatTemplate(std::string name, Render render) : name_(std::move(name)), render_(render) {}

  std::string name_;
  Render render_;
};

class ChatTemplate::Writer {
 public:
  void add(std::string_view text, bool is_target = false) {
    result.text += text;
    result.targets.append(text.size(), static_cast<char>(is_target));
  }
  void target(std::string_view text) { add(text, true); }

  ChatText result;
};

/// Renderers by fingerprint.
struct KnownChatTemplate {
  const char* name;
  const char* fingerprint;
  ChatTemplate::Render render;
};
std::span<const KnownChatTemplate> known_chat_templates();

}  // namespace farskip
