#include "data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "data/byte_tokenizer.h"
#include "data/indexed_dataset.h"
#include "data/vocabulary_record.h"
#include "tests/base/temp_folder.h"
#include "tokenizer/tokenizer.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class PrepareTest : public ::testing::Test {
 protected:
  PrepareTest() { options_.output_prefix = folder_ / "out/data", options_.progress = nullptr; }

  void add_input(const std::string& name, const std::string& text) {
    write_file(folder_ / name, text);
    options_.inputs.push_back(folder_ / name);
  }
  /// The documents as text, where each must end with an end of document (unless switched off).
  std::vector<std::string> documents() {
    summary_ = prepare(options_);
    const IndexedDataset data(summary_.data_prefix);
    EXPECT_EQ(data.num_documents(), data.num_sequences());
    EXPECT_EQ(data.num_documents(), summary_.num_documents);
    EXPECT_EQ(data.num_tokens(), summary_.num_tokens);
    EXPECT_EQ(data.token_type(), TokenType::uint16);
    verify_checksums(summary_.data_prefix);
    std::vector<std::string> texts;
    for (int64_t i = 0; i < data.num_sequences(); ++i) {
      const std::vector<int32_t> tokens = data.sequence(i);
      EXPECT_EQ(tokens.back() == ByteTokenizer::kEndOfDocument, options_.append_eod);
      texts.push_back(ByteTokenizer::decode(tokens));
    }
    return texts;
  }
  std::string prepare_error() {
    const std::string text = error_of([&] { prepare(options_); });
    return text;
  }

  TempFolder folder_;
  PrepareOptions options_;
  PrepareSummary summary_;
};

TEST_F(PrepareTest, AFileIsADocumentAndAnyBytesAreText) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  add_input("a.txt", bytes);
  add_input("b.txt", "two\nlines");
  EXPECT_THAT(documents(), ElementsAre(bytes, "two\nlines"));
  EXPECT_EQ(summary_.num_tokens, 257 + 10);
  EXPECT_EQ(summary_.num_input_bytes, 256 + 9);
  EXPECT_EQ(summary_.longest_document, 257);
  EXPECT_EQ(summary_.data_prefix, folder_ / "out/data_text_document");
  EXPECT_THAT(summary_.text(), HasSubstr("documents  2 (mean 134 tokens, longest 257)"));
  EXPECT_EQ(summary_.checksums, read_file(summary_.data_prefix + ".sha256"));
}

TEST_F(PrepareTest, SeparatorsMayCrossLines) {
  add_input("a.txt", "one\n\ntwo\nstill two\n\n\n\nthree\n");
  options_.documents.separator = unescape("\\n\\n");
  EXPECT_THAT(documents(), ElementsAre("one", "two\nstill two", "three\n"));
  EXPECT_EQ(summary_.num_skipped, 1);
  options_.documents.separator = "o";
  options_.append_eod = false;
  EXPECT_THAT(documents(), ElementsAre("ne\n\ntw", "\nstill tw", "\n\n\n\nthree\n"));
}

TEST_F(PrepareTest, LinesThatBeginDocuments) {
  add_input("kjv.txt", "\nGenesis 1\n\n  1 In the beginning\n\nGenesis 2\n\n  1 Thus\r\n\n1 John 3\r\n\n  1 Behold");
  options_.documents.start = "^([1-3] )?[A-Z][A-Za-z ]* [0-9]+$";
  EXPECT_THAT(documents(), ElementsAre("Genesis 1\n\n  1 In the beginning\n\n", "Genesis 2\n\n  1 Thus\r\n\n",
                                       "1 John 3\r\n\n  1 Behold"));
  EXPECT_EQ(summary_.num_skipped, 1);
}

TEST_F(PrepareTest, JsonLines) {
  add_input("a.jsonl", "{\"text\": \"one\\n\\u00e9\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"two\"}");
  EXPECT_THAT(documents(), ElementsAre("one\n\xc3\xa9", "two"));
  EXPECT_EQ(summary_.num_skipped, 1);
  options_.documents.format = TextFormat::text;
  EXPECT_EQ(documents().size(), 1u);
}

TEST_F(PrepareTest, BadJsonLinesAreNamed) {
  options_.documents.format = TextFormat::jsonl;
  add_input("a.txt", "{\"text\": \"one\"}\n{\"body\": \"two\", \"id\": 3}\n");
  EXPECT_THAT(prepare_error(), HasSubstr("a.txt:2: no key \"text\"; the keys there: body, id;"));
  options_.documents.json_key = "id";
  write_file(folder_ / "a.txt", "{\"id\": 3}\n");
  EXPECT_THAT(prepare_error(), HasSubstr("a.txt:1: key \"id\" holds a JSON number"));
  write_file(folder_ / "a.txt", "{\"id\": \"x\"}\n\n{\"id\": \"y\n");
  EXPECT_THAT(prepare_error(), HasSubstr("a.txt:3: not JSON"));
  write_file(folder_ / "a.txt", "[1]\n");
  EXPECT_THAT(prepare_error(), HasSubstr("a.txt:1: a JSON array, but every line must be an object"));
  write_file(folder_ / "a.txt", "{\"id\": \"\xff\"}\n");
  EXPECT_THAT(prepare_error(), HasSubstr("a.txt:1: not JSON"));
  EXPECT_THAT(folder_.names(), ElementsAre("a.txt", "out"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "out"));
}

TEST_F(PrepareTest, BadOptionsAndInputs) {
  EXPECT_THAT(prepare_error(), HasSubstr("no input; name text files or - for standard input"));
  options_.inputs = {folder_ / "missing.txt"};
  EXPECT_THAT(prepare_error(), HasSubstr("missing.txt does not exist"));
  options_.inputs = {folder_.string()};
  EXPECT_THAT(prepare_error(), HasSubstr("is a folder"));
  options_.inputs.clear();
  add_input("blank.txt", " \n\t\n");
  EXPECT_THAT(prepare_error(), HasSubstr("no document in it"));
  options_.documents.start = "([a-z";
  EXPECT_THAT(prepare_error(), HasSubstr("document start \"([a-z\": not a regular expression"));
  options_.output_prefix.clear();
  EXPECT_THAT(prepare_error(), HasSubstr("no output prefix"));
  EXPECT_THAT(error_of([] { unescape("\\q"); }), HasSubstr("unknown escape \\q"));
  EXPECT_EQ(unescape("a\\t\\\\\\0"), std::string("a\t\\\0", 4));
}

TEST_F(PrepareTest, ProgressGoesToTheGivenStream) {
  add_input("a.txt", "text");
  options_.progress = std::tmpfile();
  EXPECT_THAT(documents(), ElementsAre("text"));  // done before the first line is due
  EXPECT_EQ(std::ftell(options_.progress), 0);
  std::fclose(options_.progress);
}

TEST(ByteTokenizer, RoundTrip) {
  EXPECT_EQ(ByteTokenizer::encode("\xff\x01"), (std::vector<int32_t>{255, 1}));
  EXPECT_EQ(ByteTokenizer::decode(std::vector<int32_t>{104, 105, 256, 319, 33}), "hi!");
  EXPECT_EQ(ByteTokenizer::kVocabSize % 64, 0);
}

TEST_F(PrepareTest, AVocabularyMakesTheTokensAndIsRecorded) {
  const std::string vocabulary = std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/gpt2.json";
  add_input("a.txt", "the first text\n\nand the second\xff");
  options_.documents.separator = "\n\n";
  options_.tokenizer = vocabulary;
  const auto tokenizer = load_tokenizer(vocabulary);
  const PrepareSummary summary = prepare(options_);
  EXPECT_THAT(summary.text(), HasSubstr("byte-level BPE of " + vocabulary));
  const IndexedDataset data(summary.data_prefix);
  ASSERT_EQ(data.num_sequences(), 2);
  for (const auto& [i, text] : {std::pair{0, "the first text"}, {1, "and the second\xff"}}) {
    auto expected = tokenizer->encode(text);
    expected.push_back(tokenizer->eos());
    EXPECT_EQ(data.sequence(i), expected);
  }
  const VocabularyRecord record = read_vocabulary_record(summary.data_prefix);
  EXPECT_EQ(record.end_of_document, tokenizer->eos());
  EXPECT_EQ(record.num_ids, tokenizer->num_ids());
  const std::string copy = vocabulary_folder(summary.data_prefix);
  EXPECT_EQ(load_tokenizer(copy)->encode("the first text"), tokenizer->encode("the first text"));
  EXPECT_EQ(common_vocabulary({summary.data_prefix}), summary.data_prefix);

  options_.end_of_document = "<left>";
  prepare(options_);
  EXPECT_EQ(read_vocabulary_record(summary.data_prefix).end_of_document, tokenizer->id_of("<left>"));
  options_.end_of_document = "no such token";
  EXPECT_THAT(prepare_error(), HasSubstr("no such token"));
  EXPECT_TRUE(has_tokenizer(copy)) << "an error leaves the older one";
  options_.end_of_document = "";
  options_.tokenizer = std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/qwen.json";
  EXPECT_NO_THROW(prepare(options_)) << "<|endoftext|> ends documents where nothing else is said";
  options_.tokenizer = std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/llama3.json";
  EXPECT_THAT(prepare_error(), HasSubstr("--end-of-document"));
  options_.tokenizer = "";
  prepare(options_);
  EXPECT_EQ(read_vocabulary_record(summary.data_prefix).tokenizer, "bytes");
  EXPECT_FALSE(std::filesystem::exists(copy));
  EXPECT_EQ(common_vocabulary({summary.data_prefix}), "");
}

TEST_F(PrepareTest, DataSetsOfOneVocabularyHaveItInCommon) {
  add_input("a.txt", "the first text");
  const std::string folder = std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/";
  const auto prepared = [&](const std::string& name, const std::string& tokenizer) {
    options_.output_prefix = options_.output_prefix + name;
    options_.tokenizer = tokenizer;
    return prepare(options_).data_prefix;
  };
  const std::string gpt2 = prepared("1", folder + "gpt2.json"), same = prepared("2", folder + "gpt2.json");
  const std::string qwen = prepared("3", folder + "qwen.json"), bytes = prepared("4", "");
  EXPECT_EQ(common_vocabulary({gpt2, same}), gpt2);
  EXPECT_EQ(common_vocabulary({gpt2, qwen}), "");
  EXPECT_EQ(common_vocabulary({gpt2, bytes}), "");
  EXPECT_EQ(common_vocabulary({bytes}), "");
  std::filesystem::remove_all(vocabulary_folder(gpt2));
  EXPECT_EQ(common_vocabulary({gpt2, same}), "") << "as an older version left it";
}

TEST_F(PrepareTest, ChatsOfAVocabularyHaveTargets) {
  options_.documents.format = TextFormat::chat;
  add_input(
      "chat.jsonl",
      R"({"messages": [{"role": "user", "content": "what is it"}, {"role": "assistant", "content": "it is that"}]})");
  for (const std::string name : {"gpt2", "qwen", "mixtral"}) {
    options_.tokenizer = std::string(FARSKIP_SOURCE_DIR) + "/tests/golden_text/tokenizers/" + name + ".json";
    const auto tokenizer = load_tokenizer(options_.tokenizer);
    options_.end_of_document = name == "mixtral" ? "</s>" : "";
    const PrepareSummary summary = prepare(options_);
    const auto ids = IndexedDataset(summary.data_prefix).sequence(0);
    const auto targets = IndexedDataset(summary.mask_prefix).sequence(0);
    ASSERT_EQ(ids.size(), targets.size()) << name;
    std::vector<int32_t> learned;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (targets[i] != 0) learned.push_back(ids[i]);
    }
    EXPECT_EQ(tokenizer->decode(learned), "it is that<|im_end|>") << name;
    EXPECT_EQ(targets.back(), 0);
  }
}

}  // namespace
}  // namespace farskip
