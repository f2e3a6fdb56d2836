// farskip prepare with several workers, chats, and what an interrupt leaves.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/files.h"
#include "data/byte_tokenizer.h"
#include "data/datasets.h"
#include "data/ordered_pipeline.h"
#include "data/prepare.h"
#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PrepareParallel : public ::testing::Test {
 protected:
  PrepareParallel() { options_.output_prefix = folder_ / "data", options_.progress = nullptr; }

  void add_input(const std::string& name, const std::string& text) {
    write_file(folder_ / name, text);
    options_.inputs.push_back(folder_ / name);
  }

  TempFolder folder_;
  PrepareOptions options_;
  const std::string text_ = folder_ / "data_text_document", mask_ = folder_ / "data_mask_document";
};

TEST(OrderedPipeline, KeepsTheOrderAndTheFirstError) {
  for (const int num_workers : {1, 3, 16}) {
    int next = 0;
    std::vector<int> results;
    const auto run = [&](int bad) {
      next = 0;
      results.clear();
      ordered_pipeline<int, int>(
          [&]() -> std::optional<int> {
            if (next == 50) return std::nullopt;
            if (next == bad + 3) fail("cannot read item {}", next);
            return next++;
          },
          [&](int item) {
            if (item == bad || item == bad + 1) fail("item {} is bad", item);
            return 2 * item;
          },
          [&](int result) { results.push_back(result); }, num_workers);
    };
    run(100);
    ASSERT_EQ(results.size(), 50u);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(results[static_cast<size_t>(i)], 2 * i);
    EXPECT_THAT(error_of([&] { run(20); }), HasSubstr("item 20 is bad"));
    EXPECT_EQ(results.size(), 20u);
    EXPECT_THAT(error_of([&] { run(-3); }), HasSubstr("cannot read item 0"));
  }
}

TEST_F(PrepareParallel, TheSameFilesForAnyNumberOfWorkers) {
  std::string text, lines;
  for (int i = 0; i < 30000; ++i) {
    text += fmt::format("document {} {}\n\n", i, std::string(static_cast<size_t>(i % 97), 'x'));
    lines += fmt::format("{{\"text\": \"line {} {}\"}}\n", i, std::string(static_cast<size_t>(i % 89), 'y'));
  }
  add_input("a.txt", text);
  add_input("b.jsonl", lines);
  options_.documents.separator = "\n\n";
  std::string sums;
  for (const int workers : {1, 2, 7, 0}) {
    options_.workers = workers;
    const PrepareSummary summary = prepare(options_);
    EXPECT_EQ(summary.num_documents, 60000);
    EXPECT_EQ(summary.num_input_bytes, static_cast<int64_t>(text.size() + lines.size()));
    if (sums.empty()) sums = summary.checksums;
    EXPECT_EQ(summary.checksums, sums) << workers;
  }
  const IndexedDataset data(text_);
  EXPECT_EQ(ByteTokenizer::decode(data.sequence(29999)),
            "document 29999 " + std::string(static_cast<size_t>(29999 % 97), 'x'));
  EXPECT_EQ(ByteTokenizer::decode(data.sequence(30001)), "line 1 y");
  options_.workers = -1;
  EXPECT_THAT(error_of([&] { prepare(options_); }), HasSubstr("workers=-1"));
}

TEST_F(PrepareParallel, TheFirstBadLineIsNamedWhateverTheWorkers) {
  std::string lines;
  for (int i = 1; i <= 60000; ++i) {
    lines += i == 31234 || i == 55555 ? std::string("{\"text\": 3}\n") : fmt::format("{{\"text\": \"{:080}\"}}\n", i);
  }
  add_input("a.jsonl", lines);
  for (options_.workers = 1; options_.workers <= 5; options_.workers += 2) {
    EXPECT_THAT(error_of([&] { prepare(options_); }), HasSubstr("a.jsonl:31234: key \"text\" holds a JSON number"));
  }
  EXPECT_THAT(folder_.names(), ElementsAre("a.jsonl"));
}

TEST_F(PrepareParallel, ChatsHaveAMaskOfTheAssistantsWords) {
  add_input("chat.jsonl",
            R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"},)"
            R"( {"role": "assistant", "content": "yo"}, {"role": "user", "content": "?"},)"
            R"( {"role": "assistant", "content": "\u00e9"}]})"
            "\n");
  options_.documents.format = TextFormat::chat;
  const PrepareSummary summary = prepare(options_);
  const DataFiles files = DataFiles::open(text_, true);
  const std::vector<int32_t> tokens = files.text->sequence(0), mask = files.target_mask->sequence(0);
  EXPECT_EQ(ByteTokenizer::decode(tokens),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo"
            "<|im_end|>\n<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n\xc3\xa9<|im_end|>\n");
  ASSERT_EQ(mask.size(), tokens.size());
  EXPECT_EQ(tokens.back(), ByteTokenizer::kEndOfDocument);
  EXPECT_EQ(mask.back(), 0);
  std::vector<int32_t> targets;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (mask[i] == 1) targets.push_back(tokens[i]);
  }
  EXPECT_EQ(ByteTokenizer::decode(targets), "yo<|im_end|>\xc3\xa9<|im_end|>");
  EXPECT_EQ(summary.num_targets, 2 + 10 + 2 + 10);
  EXPECT_THAT(summary.text(), HasSubstr("targets    24"));
  EXPECT_THAT(verify_data({text_}), HasSubstr("1 documents, 169 tokens, with a loss mask; files and checksums agree"));

  // 5 * 24 bytes of markers, 32 of roles, 16 of contents, and the end. In training, the mask meets the tokens where
  // they are predicted.
  DataOptions options;
  options.data_path = {text_};
  options.split = "1";
  options.seq_length = 168;
  const Sample sample = open_datasets(options).train->sample(0);
  for (size_t t = 0; t < 168; ++t) EXPECT_EQ(sample.loss_mask[t], mask[t + 1]);

  // Text under the same name has no mask.
  options_.documents.format = TextFormat::text;
  prepare(options_);
  EXPECT_EQ(DataFiles::open(text_).target_mask, nullptr);
}

TEST_F(PrepareParallel, BadChatsAreNamed) {
  options_.documents.format = TextFormat::chat;
  options_.inputs = {folder_ / "a"};
  for (const auto& [line, reason] : std::vector<std::pair<std::string, std::string>>{
           {R"({"text": "x"})", "a:1: no array \"messages\""},
           {R"({"messages": [3]})", "a:1: message 0 is a JSON number"},
           {R"({"messages": [{"content": "x"}]})", "a:1: message 0 has no key \"role\""},
           {R"({"messages": [{"role": "bot", "content": "x"}]})", "a:1: message 0 has the role \"bot\""},
           {R"({"messages": [{"role": "assistant", "content": null}]})", "\"content\" of message 0 is a JSON null"},
           {R"({"messages": [{"role": "user", "content": "x"}]})", "no message is the assistant's"},
           {"{", "a:1: not JSON"}}) {
    write_file(folder_ / "a", line + "\n");
    EXPECT_THAT(error_of([&] { prepare(options_); }), HasSubstr(reason));
  }
}

// The run is in the middle of its input (a pipe that stays open) when the signal comes.
TEST_F(PrepareParallel, AnInterruptLeavesTheOlderDatasetAndNothingElse) {
  add_input("old.txt", "an older data set");
  prepare(options_);
  const std::vector<std::string> names = folder_.names();
  const TempFolder elsewhere;
  const std::string pipe = elsewhere / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  options_.inputs = {pipe};
  options_.documents.separator = "\n";
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) {
    const pid_t child = ::fork();
    if (child == 0) {
      prepare(options_);
      ::_exit(0);
    }
    const int fd = ::open(pipe.c_str(), O_WRONLY);
    const std::string block(1 << 16, 'x');
    for (int i = 0; i < 64; ++i) EXPECT_EQ(::write(fd, (block + "\n").data(), block.size() + 1), 65537);
    ::kill(child, signal);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ::close(fd);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal);
    EXPECT_EQ(folder_.names(), names);
    EXPECT_EQ(ByteTokenizer::decode(DataFiles::open(text_, true).text->sequence(0)), "an older data set");
  }
}

}  // namespace
}  // namespace farskip
