#include "data/chat.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farskip {
namespace {

constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};

const std::string& text_of(const nlohmann::json& message, size_t i, const char* key) {
  const auto found = message.find(key);
  if (found == message.end()) fail("message {} has no key \"{}\"", i, key);
  if (!found->is_string()) fail("\"{}\" of message {} is a JSON {}, but must be a string", key, i, found->type_name());
  return found->get_ref<const std::string&>();
}

}  // namespace

Document chat_document(const nlohmann::json& object, const ChatFormat* format) {
  const auto messages = object.find("messages");
  if (messages == object.end() || !messages->is_array()) {
    fail("no array \"messages\", as in {{\"messages\": [{{\"role\": \"user\", \"content\": \"...\"}}, ...]}}");
  }
  std::vector<ChatMessage> chat;
  bool has_target = false;
  for (size_t i = 0; i < messages->size(); ++i) {
    const nlohmann::json& message = (*messages)[i];
    if (!message.is_object()) fail("message {} is a JSON {}, but must be an object", i, message.type_name());
    const std::string& role = text_of(message, i, "role");
    if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
      fail("message {} has the role \"{}\"; known are system, user, assistant, tool", i, role);
    }
    has_target |= role == "assistant";
    chat.push_back({role, text_of(message, i, "content")});
  }
  if (!has_target) fail("no message is the assistant's, so there is nothing to learn");
  if (format != nullptr) {
    ChatText text = format->chat_template.render(chat, format->config, false);
    return {std::move(text.text), std::move(text.targets)};
  }
  Document document;
  const auto add = [&](std::string_view text, bool is_target) {
    document.text += text;
    document.targets.append(text.size(), static_cast<char>(is_target));
  };
  for (const auto& [role, content] : chat) {
    const bool is_target = role == "assistant";
    add("<|im_start|>" + role + "\n", false);
    add(content, is_target);
    add("<|im_end|>", is_target);
    add("\n", false);
  }
  return document;
}

}  // namespace farskip
