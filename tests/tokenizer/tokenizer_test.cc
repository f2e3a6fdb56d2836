// What golden files do not show: files that are damaged or unknown, learning a vocabulary, tiktoken's format.

#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/files.h"
#include "tests/base/temp_folder.h"
#include "tokenizer/pattern.h"
#include "tokenizer/train_bpe.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

class TokenizerFile : public ::testing::Test {
 protected:
  TokenizerFile() {
    document_ = {
        {"added_tokens", {{{"id", 4}, {"content", "<end>"}, {"special", true}}}},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"Ġ", 3}}}, {"merges", {"a b"}}}}};
  }
  std::unique_ptr<Tokenizer> load() {
    write_file(folder_ / "tokenizer.json", document_.dump());
    return load_tokenizer(folder_.string());
  }
  std::string load_error() {
    return error_of([&] { load(); });
  }

  TempFolder folder_;
  Json document_;
};

TEST_F(TokenizerFile, IsRead) {
  const auto tokenizer = load();
  EXPECT_THAT(tokenizer->encode("ab ba<end>"), ElementsAre(2, 3, 1, 0, 4));
  EXPECT_THAT(tokenizer->encode("acb"), ElementsAre(2)) << "letters without a token vanish, as in Hugging Face's";
  EXPECT_EQ(tokenizer->num_ids(), 5);
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{2, 99, -1, 4}), "ab<end>");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{2, 4}, true), "ab");
  EXPECT_EQ(tokenizer->id_of("ab"), 2);
  EXPECT_EQ(tokenizer->id_of("<end>"), 4);
  EXPECT_EQ(tokenizer->id_of("no"), -1);
  EXPECT_EQ(tokenizer->token_of(3), "Ġ");
  EXPECT_TRUE(tokenizer->is_special(4));
  EXPECT_EQ(tokenizer->eos(), -1);
}

TEST_F(TokenizerFile, SpecialTokensAreOfTheConfig) {
  write_file(folder_ / "tokenizer_config.json",
             R"({"eos_token": {"content": "<end>"}, "bos_token": "a", "chat_template": "{{ x }}"})");
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->eos(), 4);
  EXPECT_EQ(tokenizer->bos(), 0);
  EXPECT_EQ(tokenizer->pad(), -1);
  EXPECT_EQ(tokenizer->config().chat_template, "{{ x }}");
}

TEST_F(TokenizerFile, UnknownComponentsAreNamed) {
  const auto with = [&](const char* key, Json value) {
    Json kept = std::exchange(document_[key], std::move(value));
    const std::string error = load_error();
    document_[key] = std::move(kept);
    return error;
  };
  EXPECT_THAT(with("normalizer", {{"type", "Precompiled"}}),
              AllOf(HasSubstr("normalizer Precompiled"), HasSubstr("NFC")));
  EXPECT_THAT(with("pre_tokenizer", {{"type", "BertPreTokenizer"}}),
              AllOf(HasSubstr("pre_tokenizer BertPreTokenizer"), HasSubstr("ByteLevel")));
  EXPECT_THAT(
      with("pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}}),
      HasSubstr("ByteLevel, which must be the last"));
  EXPECT_THAT(with("decoder", {{"type", "WordPiece"}}), HasSubstr("decoder WordPiece"));
  EXPECT_THAT(with("post_processor", {{"type", "BertProcessing"}}), HasSubstr("post_processor BertProcessing"));
  EXPECT_THAT(with("model", {{"type", "Unigram"}, {"vocab", Json::array()}}), HasSubstr("model Unigram"));
  EXPECT_THAT(with("pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}}),
              HasSubstr("(a"));
  document_["model"]["dropout"] = 0.1;
  EXPECT_THAT(load_error(), HasSubstr("dropout"));
}

TEST_F(TokenizerFile, DamageIsNamed) {
  document_["model"]["merges"] = {"a c"};
  EXPECT_THAT(load_error(), AllOf(HasSubstr("merge 0 (a c)"), HasSubstr("token c")));
  document_["model"]["merges"] = {"abc"};
  EXPECT_THAT(load_error(), HasSubstr("abc"));
  document_["model"]["merges"] = Json::array();
  document_["model"]["vocab"]["b"] = 0;
  EXPECT_THAT(load_error(), HasSubstr("the id 0"));
  document_["model"]["vocab"]["b"] = -1;
  EXPECT_THAT(load_error(), HasSubstr("-1"));
  document_["model"]["vocab"]["b"] = 4;
  EXPECT_THAT(load_error(), AllOf(HasSubstr("<end>"), HasSubstr("the id 4")));
  write_file(folder_ / "tokenizer.json", "{");
  EXPECT_THAT(error_of([&] { load_tokenizer(folder_.string()); }), HasSubstr("no JSON"));
  EXPECT_THAT(error_of([&] { load_tokenizer(folder_ / "absent"); }), HasSubstr("does not exist"));
  const TempFolder empty;
  EXPECT_THAT(error_of([&] { load_tokenizer(empty.string()); }),
              AllOf(HasSubstr("no vocabulary"), HasSubstr("tiktoken")));
}

TEST_F(TokenizerFile, ManyThreadsGetTheSameIds) {
  const auto tokenizer = load();
  const auto expected = tokenizer->encode("ab ab ba bab abba");
  std::vector<std::thread> threads;
  std::atomic<int> num_equal = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) num_equal += tokenizer->encode("ab ab ba bab abba") == expected;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(num_equal, 800);
}

TEST(Tiktoken, RanksAreIds) {
  const TempFolder folder;
  write_file(folder / "tiktoken.model", "YQ== 0\nYg== 1\nIA== 2\nYWI= 3\nIGFi 4\nYmE= 5\n");  // a b ' ' ab ' ab' ba
  EXPECT_THAT(error_of([&] { load_tokenizer(folder.string()); }), HasSubstr("TikTokenTokenizer"));
  write_file(folder / "tokenizer_config.json",
             R"({"tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]", "eos_token": "[EOS]",
                 "added_tokens_decoder": {"6": {"content": "[BOS]"}, "7": {"content": "[EOS]"}}})");
  const auto tokenizer = load_tokenizer(folder.string());
  EXPECT_THAT(tokenizer->encode("ab ab aba[EOS]"), ElementsAre(3, 4, 4, 0, 7));
  EXPECT_EQ(tokenizer->num_ids(), 6 + 256);
  EXPECT_EQ(tokenizer->eos(), 7);
  EXPECT_EQ(tokenizer->token_of(9), "<|reserved_token_9|>");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{3, 4, 7}), "ab ab[EOS]");
  for (const char* bad : {"YQ== 0\nYg==\n", "YQ== 0\n!!!! 1\n", "YQ== 0\nYg== 0\n", "YQ== 0\nYg== 2\n", ""}) {
    write_file(folder / "tiktoken.model", bad);
    EXPECT_THAT(error_of([&] { load_tokenizer(folder.string()); }), HasSubstr("tiktoken.model")) << bad;
  }
}

TEST(CopyTokenizer, TheCopyIsTheSameTokenizer) {
  const TempFolder folder;
  for (const char* name : {"model", "to", "empty"}) std::filesystem::create_directory(folder / name);
  write_file(folder / "model/tiktoken.model", "YQ== 0\nYg== 1\nIA== 2\n");
  write_file(folder / "model/tokenizer_config.json", R"({"tokenizer_class": "TikTokenTokenizer", "eos_token": "[EOS]",
                 "added_tokens_decoder": {"3": {"content": "[EOS]"}}})");
  write_file(folder / "model/config.json", "{}");
  EXPECT_THAT(copy_tokenizer(folder / "model", folder / "to"), ElementsAre("tiktoken.model", "tokenizer_config.json"));
  EXPECT_THAT(load_tokenizer(folder / "to")->encode("ab[EOS]"), ElementsAre(0, 1, 3));
  EXPECT_EQ(load_tokenizer(folder / "to")->eos(), 3);
  // A file of any name is found in its new folder.
  std::filesystem::remove_all(folder / "to");
  std::filesystem::create_directory(folder / "to");
  const std::string gpt2 = std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/gpt2.json";
  EXPECT_THAT(copy_tokenizer(gpt2, folder / "to"), ElementsAre("tokenizer.json"));
  EXPECT_EQ(load_tokenizer(folder / "to")->encode("a text"), load_tokenizer(gpt2)->encode("a text"));
  EXPECT_THAT(error_of([&] { copy_tokenizer(folder / "empty", folder / "to"); }), HasSubstr("holds no vocabulary"));
}

TEST(SentencePiece, DamagedModelsAreRefused) {
  const TempFolder folder;
  write_file(folder / "tokenizer.model", "no model");
  EXPECT_THAT(error_of([&] { load_tokenizer(folder.string()); }),
              AllOf(HasSubstr("tokenizer.model"), HasSubstr("SentencePiece")));
}

TEST(TrainBpe, TheMostFrequentPairIsMergedFirstAndTheFileReadsBack) {
  const TempFolder folder;
  std::string text;
  for (int i = 0; i < 50; ++i) text += "low lower lowest newest widest\n";
  write_file(folder / "text.txt", text);
  TrainBpeOptions options;
  options.inputs = {folder / "text.txt"}, options.vocab_size = 270, options.progress = nullptr;
  const BpeVocabulary vocabulary = train_bpe(options);
  EXPECT_EQ(vocabulary.tokens.size(), 270u);
  EXPECT_EQ(vocabulary.tokens[0], "<|endoftext|>");
  ASSERT_GE(vocabulary.merges.size(), 2u);
  const auto merged = [&](size_t rank) {
    return vocabulary.tokens[static_cast<size_t>(vocabulary.merges[rank].first)] +
           vocabulary.tokens[static_cast<size_t>(vocabulary.merges[rank].second)];
  };
  EXPECT_EQ(merged(0), "es") << "lo, ow, es, st are equally many; e has the smallest id";
  write_file(folder / "tokenizer.json", tokenizer_json(vocabulary));
  EXPECT_EQ(tokenizer_json(train_bpe(options)), read_file(folder / "tokenizer.json")) << "not deterministic";
  const auto tokenizer = load_tokenizer(folder.string());
  EXPECT_EQ(tokenizer->num_ids(), 270);
  EXPECT_EQ(tokenizer->eos(), 0);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_LT(tokenizer->encode(text).size(), text.size() / 2);

  options.vocab_size = 100;
  EXPECT_THAT(error_of([&] { train_bpe(options); }), AllOf(HasSubstr("100"), HasSubstr("257")));
  options.vocab_size = 300, options.inputs = {folder / "absent"};
  EXPECT_THAT(error_of([&] { train_bpe(options); }), HasSubstr("absent"));
}

TEST(Utf8, InvalidBytesAreReplacedAsPythonDoes) {
  // bytes.decode(errors="replace")
  EXPECT_EQ(replace_invalid_utf8("a\xff\xfe"), "a\uFFFD\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("\xe4\xb8z"), "\uFFFDz");
  EXPECT_EQ(replace_invalid_utf8("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("\xf0\x9f\x98"), "\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("\xc0\xaf\xf5"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replace_invalid_utf8("中\xf4\x90é"), "中\uFFFD\uFFFDé");
  EXPECT_EQ(cut_utf8_bytes("a\xf0\x9f\x98"), 3u);
  EXPECT_EQ(cut_utf8_bytes("a\xe4\xff"), 0u);
  EXPECT_EQ(cut_utf8_bytes("中"), 0u);
}

TEST(Pattern, IsSpelledForPcre2) {
  EXPECT_EQ(pcre2_spelling(R"([\p{Lu}\p{M}])"), R"([\p{Lu}\p{M}])");
  EXPECT_THAT(pcre2_spelling(R"([\p{L}&&[^\p{Han}]]+)"), AllOf(HasSubstr(R"(\p{Nd})"), HasSubstr(R"(\p{Han}]+)")));
  for (const char* bad : {R"(\h)", R"([a[b]])", R"([a&&b])", R"([\p{Latin}&&[^a]])", "[a", R"(\b)"}) {
    EXPECT_THROW(pcre2_spelling(bad), Error) << bad;
  }
}

}  // namespace
}  // namespace farskip
