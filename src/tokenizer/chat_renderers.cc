// The known chat templates, each as a function that writes what the Jinja text gives.

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

using Messages = std::span<const ChatMessage>;
using Writer = ChatTemplate::Writer;

/// Python's str.strip().
std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char32_t code) { return is_white_space(code) || (code >= 0x1C && code <= 0x1F); };
  while (!text.empty()) {
    const Utf8Char c = first_utf8_char(text);
    if (!is_space(c.code)) break;
    text.remove_prefix(static_cast<size_t>(c.num_bytes));
  }
  while (!text.empty()) {
    size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (!is_space(first_utf8_char(text.substr(at)).code)) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string_view without_newlines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

std::string_view behind_last(std::string_view text, std::string_view mark) {
  const size_t at = text.rfind(mark);
  return at == std::string_view::npos ? text : text.substr(at + mark.size());
}

std::string_view behind_first(std::string_view text, std::string_view mark) {
  const size_t at = text.find(mark);
  return at == std::string_view::npos ? text : text.substr(at + mark.size());
}

[[noreturn]] void refuse_role(const std::string& role) { fail("the chat template knows no role \"{}\"", role); }

/// Roles must alternate, the user's first.
void check_alternation(Messages messages) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role != "user" && role != "assistant") refuse_role(role);
    if ((role == "user") != (i % 2 == 0)) {
      fail("the chat template wants user and assistant in turns; message {} is the {}'s", i, role);
    }
  }
}

void deepseek_v2(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  out.add(config.bos_token);
  for (const auto& [role, content] : messages) {
    if (role == "user") {
      out.add("User: " + content + "\n\n");
    } else if (role == "assistant") {
      out.add("Assistant: ");
      out.target(content + config.eos_token);
    } else if (role == "system") {
      out.add(content + "\n\n");
    } else {
      refuse_role(role);
    }
  }
  if (prompt) out.add("Assistant:");
}

/// What systems say, the last alone or all of them, in front of everything.
std::string deepseek_system(Messages messages, bool all) {
  std::string text;
  bool first = true;
  for (const auto& [role, content] : messages) {
    if (role != "system") continue;
    text = !all || first ? content : text + "\n\n" + content;
    first = false;
  }
  return text;
}

struct DeepSeekForm {
  bool all_systems = true;
  bool drops_thoughts = false;          ///< of earlier turns
  bool question_asks = false;           ///< the assistant's mark stands behind each question, not before an answer
  std::string_view prompt_behind = {};  ///< what the mark that asks for an answer is followed by
};

void deepseek_v3(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out, const DeepSeekForm& form) {
  constexpr std::string_view asks = "<｜Assistant｜>";
  out.add(config.bos_token + deepseek_system(messages, form.all_systems));
  bool is_asked = false;
  for (const auto& [role, content] : messages) {
    if (role == "user") {
      out.add("<｜User｜>" + content);
      if (form.question_asks) out.add(asks);
      is_asked = form.question_asks;
    } else if (role == "assistant") {
      if (!form.question_asks) out.add(asks);
      out.target(form.drops_thoughts ? behind_last(content, "</think>") : std::string_view(content));
      out.target("<｜end▁of▁sentence｜>");
      is_asked = false;
    } else if (role != "system") {
      refuse_role(role);
    }
  }
  if (prompt && !is_asked) out.add(std::string(asks) + std::string(form.prompt_behind));
}

void deepseek_v3_first(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  deepseek_v3(messages, config, prompt, out, {});
}
void deepseek_v3_0324(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  deepseek_v3(messages, config, prompt, out, {.question_asks = true});
}
void deepseek_r1_first(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  deepseek_v3(messages, config, prompt, out, {.all_systems = false, .drops_thoughts = true});
}
void deepseek_r1(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  deepseek_v3(messages, config, prompt, out, {.drops_thoughts = true, .prompt_behind = "<think>\n"});
}

/// Without thinking, which these two leave off unless a caller asks. `asks_always`: also where no question is open.
void deepseek_v3_1(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out, bool asks_always) {
  constexpr std::string_view asks = "<｜Assistant｜></think>";
  out.add(config.bos_token + deepseek_system(messages, true));
  bool is_question = false;
  for (const auto& [role, content] : messages) {
    if (role == "user") {
      out.add("<｜User｜>" + content);
      is_question = true;
    } else if (role == "assistant") {
      if (is_question) out.add(asks);
      out.target(behind_first(content, "</think>"));
      out.target("<｜end▁of▁sentence｜>");
      is_question = false;
    } else if (role != "system") {
      refuse_role(role);
    }
  }
  if (prompt && (is_question || asks_always)) out.add(asks);
}

void deepseek_v3_1_first(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  deepseek_v3_1(messages, config, prompt, out, false);
}
void deepseek_v3_1_terminus(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  deepseek_v3_1(messages, config, prompt, out, true);
}

/// Kimi-K2; Moonlight's has no tools.
void kimi(Messages messages, bool prompt, bool knows_tool, Writer& out) {
  if (messages[0].role != "system") out.add("<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>");
  for (const auto& [role, content] : messages) {
    const bool is_tool = role == "tool";
    if (role != "system" && role != "user" && role != "assistant" && !(is_tool && knows_tool)) refuse_role(role);
    out.add("<|im_" + (is_tool ? std::string("system") : role) + "|>" + role + "<|im_middle|>");
    out.add(content + "<|im_end|>", role == "assistant");
  }
  if (prompt) out.add("<|im_assistant|>assistant<|im_middle|>");
}

void kimi_k2(Messages messages, const TokenizerConfig&, bool prompt, Writer& out) { kimi(messages, prompt, true, out); }
void moonlight(Messages messages, const TokenizerConfig&, bool prompt, Writer& out) {
  kimi(messages, prompt, false, out);
}

/// What an assistant's message of Qwen3 says: thoughts stay only behind the user's last question.
std::string qwen3_answer(const std::string& text, bool is_after_question, bool is_last) {
  std::string_view content = text, thoughts;
  if (const size_t end = content.find("</think>"); end != std::string_view::npos) {
    thoughts = without_newlines(content.substr(0, end), false, true);
    thoughts = without_newlines(behind_last(thoughts, "<think>"), true, false);
    content = without_newlines(behind_last(content, "</think>"), true, false);
  }
  if (!is_after_question || !(is_last || !thoughts.empty())) return std::string(content);
  return fmt::format("<think>\n{}\n</think>\n\n{}", without_newlines(thoughts, true, true),
                     without_newlines(content, true, false));
}

void qwen3(Messages messages, const TokenizerConfig&, bool prompt, Writer& out) {
  const auto n = static_cast<int64_t>(messages.size());
  int64_t last_question = n - 1;
  for (int64_t i = n - 1; i >= 0; --i) {
    const auto& [role, content] = messages[static_cast<size_t>(i)];
    if (role == "user" && !(content.starts_with("<tool_response>") && content.ends_with("</tool_response>"))) {
      last_question = i;
      break;
    }
  }
  const auto is_tool = [&](int64_t i) { return i >= 0 && i < n && messages[static_cast<size_t>(i)].role == "tool"; };
  for (int64_t i = 0; i < n; ++i) {
    const auto& [role, content] = messages[static_cast<size_t>(i)];
    if (role == "user" || role == "system") {
      out.add("<|im_start|>" + role + "\n" + content + "<|im_end|>\n");
    } else if (role == "assistant") {
      out.add("<|im_start|>assistant\n");
      out.target(qwen3_answer(content, i > last_question, i == n - 1) + "<|im_end|>");
      out.add("\n");
    } else if (role == "tool") {
      if (!is_tool(i - 1)) out.add("<|im_start|>user");
      out.add("\n<tool_response>\n" + content + "\n</tool_response>");
      if (!is_tool(i + 1)) out.add("<|im_end|>\n");
    } else {
      refuse_role(role);
    }
  }
  if (prompt) out.add("<|im_start|>assistant\n");
}

void llama3_messages(Messages messages, bool prompt, Writer& out) {
  for (const auto& [role, content] : messages) {
    if (role != "system" && role != "user" && role != "assistant") refuse_role(role);
    out.add("<|start_header_id|>" + role + "<|end_header_id|>\n\n");
    out.add(std::string(trimmed(content)) + "<|eot_id|>", role == "assistant");
  }
  if (prompt) out.add("<|start_header_id|>assistant<|end_header_id|>\n\n");
}

void llama3(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  out.add(config.bos_token);
  llama3_messages(messages, prompt, out);
}

/// The first text of Llama-3's template asks for an answer in any case.
void llama3_first(Messages messages, const TokenizerConfig& config, bool, Writer& out) {
  llama3(messages, config, true, out);
}

void llama3_1(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  out.add(config.bos_token);
  const bool has_system = messages[0].role == "system";
  out.add(
      "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
      "2024\n\n");
  if (has_system) out.add(trimmed(messages[0].content));
  out.add("<|eot_id|>");
  llama3_messages(messages.subspan(has_system), prompt, out);
}

/// A tool's answer is written as JSON; any other role as it is called.
void llama4(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  const auto header = [&](const std::string& role) { out.add("<|header_start|>" + role + "<|header_end|>\n\n"); };
  out.add(config.bos_token);
  const bool has_system = messages[0].role == "system";
  if (has_system) {
    header("system");
    out.add(std::string(trimmed(messages[0].content)) + "<|eot|>");
  }
  for (const auto& [role, content] : messages.subspan(has_system)) {
    const bool is_tool = role == "tool" || role == "ipython";
    header(is_tool ? "ipython" : role);
    out.add((is_tool ? nlohmann::json(content).dump() : content) + "<|eot|>", role == "assistant");
  }
  if (prompt) header("assistant");
}

void mistral_v0(Messages messages, const TokenizerConfig& config, bool, Writer& out) {
  check_alternation(messages);
  out.add(config.bos_token);
  for (const auto& [role, content] : messages) {
    if (role == "user") {
      out.add("[INST] " + content + " [/INST]");
    } else {
      out.target(content + config.eos_token);
    }
  }
}

void mixtral(Messages messages, const TokenizerConfig& config, bool, Writer& out) {
  const bool has_system = messages[0].role == "system";
  const Messages turns = messages.subspan(has_system);
  check_alternation(turns);
  out.add(config.bos_token);
  for (size_t i = 0; i < turns.size(); ++i) {
    if (turns[i].role == "user") {
      const std::string system = i == 0 && has_system ? messages[0].content + "\n\n" : "";
      out.add(" [INST] " + system + turns[i].content + " [/INST]");
    } else {
      out.add(" ");
      out.target(turns[i].content + config.eos_token);
    }
  }
}

void tulu_messages(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    if (role == "system" || role == "user") {
      out.add("<|" + role + "|>\n" + content + "\n");
    } else if (role == "assistant") {
      out.add("<|assistant|>\n");
      out.target(content + config.eos_token);
      if (i + 1 < messages.size()) out.add("\n");
    } else {
      refuse_role(role);
    }
  }
  if (prompt) out.add("<|assistant|>\n");
}

void tulu(Messages messages, const TokenizerConfig& config, bool prompt, Writer& out) {
  out.add(config.bos_token);
  tulu_messages(messages, config, prompt, out);
}

constexpr KnownChatTemplate kKnown[] = {
    {"DeepSeek-V2", "8aeba567270fa9a8d5372caf4b04affea947c4421d96adc01e3ff94021b0ae8e", deepseek_v2},
    {"DeepSeek-V3", "3b8267e54b67df6500f231ffa969955cc9d26b3444a291ced4eb96ca7d3ca1ea", deepseek_v3_first},
    {"DeepSeek-V3-0324", "22e97ba043dacf9df1f071a9de9d2bb6b0757491f16e96e810834b86e1641286", deepseek_v3_0324},
    {"DeepSeek-V3.1", "45690185067ea25c073bff2d3e425a45ee2564d2bbf6cdf7d885e139d460b8e0", deepseek_v3_1_first},
    {"DeepSeek-V3.1-Terminus", "6e50812c1ed791d81930e675021f2524b075f5f23558305b7eef5c030b4c61f2",
     deepseek_v3_1_terminus},
    {"DeepSeek-R1 (first)", "1546232b56f9c33a5d7fcdc270b0014d67dff9c3df06737f091a4a7dee729c3a", deepseek_r1_first},
    {"DeepSeek-R1", "5b7a90c17faa4288745d78ec7097e9a571a3bb7cddc0ab0282d552bd63c7fb51", deepseek_r1},
    {"Kimi-K2", "0d19c3a601c02d8f788799efcaceee9f0cda955e165b9c137ea9f7198fea4d37", kimi_k2},
    {"Moonlight", "6b8f9563736bb6f83c21a093c302196ec2c837ae16b085484a20f406d6ca6542", moonlight},
    {"Moonlight", "0af7f5845651f3ba85a82d70d8af968a1da0a60f4c7bb662a9c305cfc9cc224c", moonlight},
    {"Qwen3", "2df317a15cbc983d9602cc391d33be17237d47ec7eb11ead80fae277143958aa", qwen3},
    {"Llama-3 (first)", "b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2", llama3_first},
    {"Llama-3", "ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122", llama3},
    {"Llama-3.1", "99799a835a31e1d33c4a9c7ee8a0de3923b291a95155ed6dc8efcbd0fe1d0238", llama3_1},
    {"Llama-4", "9bcc2b35f15730186459ff95c30804d7b97eeb97360b71b432f5564aab789f04", llama4},
    {"Mixtral (first)", "26a59556925c987317ce5291811ba3b7f32ec4c647c400c6cc7e3a9993007ba7", mistral_v0},
    {"Mixtral", "1c6594f8393552ef16bbf3ddecb67d8258fb8d66339a1a092a8f8496061f02d3", mixtral},
    {"OLMoE", "fe689ffbd6a4e2d0532d7480696b065b10e0e1eff3f9b9fc4bea415761e4bf4a", tulu},
    {"Tulu", "ac7498a36a719da630e99d48e6ebc4409de85a77556c2b6159eeb735bcbd11df", tulu_messages},
};

}  // namespace

std::span<const KnownChatTemplate> known_chat_templates() { return kKnown; }

}  // namespace farskip
