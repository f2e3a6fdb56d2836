#include "tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "tests/base/error_of.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<ChatMessage> messages_of(const nlohmann::json& conversation) {
  std::vector<ChatMessage> messages;
  for (const auto& message : conversation) messages.push_back({message["role"], message["content"]});
  return messages;
}

TEST(ChatTemplate, RendersLikeTransformers) {
  const auto golden =
      nlohmann::json::parse(read_file(std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/chats.json"));
  TokenizerConfig config;
  config.bos_token = golden["bos_token"], config.eos_token = golden["eos_token"];
  size_t num_templates = 0;
  for (const auto& known : golden["templates"]) {
    const auto chat = ChatTemplate::with_fingerprint(known["fingerprint"], known["name"]);
    ++num_templates;
    int num_equal = 0;
    for (size_t i = 0; i < known["rendered"].size(); ++i) {
      const auto messages = messages_of(golden["conversations"][i / 2]);
      const auto& expected = known["rendered"][i];
      const auto render = [&] { return chat.render(messages, config, i % 2 == 1); };
      if (expected.is_null()) {
        EXPECT_THROW(render(), Error) << known["name"] << " " << i;
        continue;
      }
      try {
        const ChatText text = render();
        EXPECT_EQ(text.text, expected.get<std::string>()) << known["name"] << " " << i;
        EXPECT_EQ(text.targets.size(), text.text.size());
        num_equal += i % 2;
      } catch (const Error& error) {  // templates that ignore or misspell a tool's answer
        EXPECT_THAT(error.what(), HasSubstr("no role \"tool\"")) << known["name"] << " " << i;
      }
    }
    EXPECT_GE(num_equal, 20) << known["name"];
  }
  EXPECT_EQ(num_templates, known_chat_templates().size());
}

TEST(ChatTemplate, TheAssistantsWordsAreTheTargets) {
  for (const auto& known : known_chat_templates()) {
    const auto chat = ChatTemplate::with_fingerprint(known.fingerprint, "");
    TokenizerConfig config;
    config.bos_token = "<BOS>", config.eos_token = "<EOS>";
    const ChatText text = chat.render(
        std::vector<ChatMessage>{{"user", "Ask"}, {"assistant", "Tell"}, {"user", "More"}, {"assistant", "End"}},
        config, false);
    std::string learned;
    for (size_t i = 0; i < text.text.size(); ++i) learned += text.targets[i] != 0 ? text.text[i] : ' ';
    EXPECT_THAT(learned, HasSubstr("Tell<")) << known.name;
    EXPECT_THAT(learned, HasSubstr("End<")) << known.name;
    EXPECT_EQ(learned.find("Ask"), std::string::npos);
    EXPECT_EQ(learned.find("More"), std::string::npos);
  }
}

TEST(ChatTemplate, UnknownOnesAreRefusedWithTheKnown) {
  EXPECT_THAT(testing::error_of([] { ChatTemplate::of("{{ messages }}", "my/model"); }),
              AllOf(HasSubstr("my/model"), HasSubstr("not guessed"), HasSubstr("DeepSeek-V2"),
                    HasSubstr(chat_template_fingerprint("{{ messages }}"))));
  EXPECT_THAT(testing::error_of([] { ChatTemplate::of("", "my/model"); }), HasSubstr("no chat template"));
}

TEST(ChatTemplate, FingerprintsOfTextsThatRenderAlikeAreEqual) {
  EXPECT_EQ(chat_template_fingerprint("a\nb"), chat_template_fingerprint("a\\nb\n"));
  EXPECT_EQ(chat_template_fingerprint("a\nb"), chat_template_fingerprint("a\r\nb\r\n"));
  EXPECT_NE(chat_template_fingerprint("a\nb"), chat_template_fingerprint("a\nb\n\n"));
  EXPECT_NE(chat_template_fingerprint("a\nb"), chat_template_fingerprint("a b"));
}

}  // namespace
}  // namespace farskip
