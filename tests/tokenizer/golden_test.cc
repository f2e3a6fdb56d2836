// Ids and texts as Hugging Face's tokenizers gives them, for small vocabularies of the families (golden.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

const std::string kFolder = std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/";

std::string decoded_base64(const std::string& text) {
  static const std::string kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(kDigits.find(c));
    if ((num_bits += 6) >= 8) bytes += static_cast<char>(bits >> (num_bits -= 8));
  }
  return bytes;
}

std::vector<int32_t> ids_of(const std::string& line) {
  std::istringstream words(line);
  return {std::istream_iterator<int32_t>(words), {}};
}

class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  static void SetUpTestSuite() {
    cases_ = nlohmann::json::parse(read_file(kFolder + "cases.json"));
    for (const auto& text : cases_["texts"]) texts_.push_back(decoded_base64(text));
  }
  static void TearDownTestSuite() {
    cases_ = {};
    texts_.clear();
  }
  static nlohmann::json cases_;
  static std::vector<std::string> texts_;

  const nlohmann::json& expected_ = cases_["tokenizers"][GetParam()];
  const std::unique_ptr<Tokenizer> tokenizer_ = load_tokenizer(kFolder + GetParam() + ".json");
};
nlohmann::json Golden::cases_;
std::vector<std::string> Golden::texts_;

TEST_P(Golden, Encodes) {
  ASSERT_GE(expected_["ids"].size(), 150u);
  for (size_t i = 0; i < expected_["ids"].size(); ++i) {
    EXPECT_EQ(tokenizer_->encode(texts_[i]), ids_of(expected_["ids"][i])) << texts_[i];
  }
  EXPECT_EQ(tokenizer_->encode("a b", true), expected_["special"].get<std::vector<int32_t>>());
}

TEST_P(Golden, Decodes) {
  for (size_t i = 0; i < expected_["decoded"].size(); ++i) {
    EXPECT_EQ(tokenizer_->decode(ids_of(expected_["ids"][i])), expected_["decoded"][i].get<std::string>());
  }
}

TEST_P(Golden, StreamsWholeCharactersThatMakeTheText) {
  for (size_t i = 0; i < expected_["ids"].size(); ++i) {
    const std::vector<int32_t> ids = ids_of(expected_["ids"][i]);
    StreamDecoder stream(*tokenizer_);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = stream.push(id);
      EXPECT_TRUE(is_utf8(piece));
      text += piece;
    }
    text += stream.finish();
    EXPECT_EQ(text, tokenizer_->decode(ids));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Golden,
                         ::testing::Values("gpt2", "deepseek_v2", "deepseek_v3", "qwen", "llama3", "llama4", "olmoe",
                                           "mixtral"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Gpt2, ItsOwnVocabularyGivesItsOwnIds) {
  const std::string folder = std::string(FARSKIP_SOURCE_DIR) + "/../shared/data/gpt2";
  if (!std::ifstream(folder + "/vocab.bpe")) GTEST_SKIP() << folder << " is not there";
  const auto tokenizer = load_tokenizer(folder);
  EXPECT_EQ(tokenizer->num_ids(), 50257);
  EXPECT_EQ(tokenizer->eos(), 50256);
  const std::vector<int32_t> ids = {15496, 11, 995, 0, 50256};
  EXPECT_EQ(tokenizer->encode("Hello, world!<|endoftext|>"), ids);
  EXPECT_EQ(tokenizer->decode(ids, true), "Hello, world!");
}

}  // namespace
}  // namespace farskip
