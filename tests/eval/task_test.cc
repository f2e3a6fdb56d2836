// What tasks ask: windows of texts, forms of questions, and what is said about files that are wrong.

#include "eval/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/files.h"
#include "eval/batches.h"
#include "eval/task_file.h"
#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const TaskText bytes(nullptr);
constexpr int64_t vocab = 320;

std::vector<int32_t> numbers(int32_t n) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < n; ++i) tokens.push_back(i);
  return tokens;
}

class Tasks : public ::testing::Test {
 protected:
  std::string file(const std::string& text) {
    write_file(folder / "set.jsonl", text);
    return folder / "set.jsonl";
  }
  std::string error_of_set(EvalTask (*read)(const std::string&, const std::string&, const TaskText&, const SetOptions&),
                           const std::string& text, const SetOptions& options = {.max_positions = 100}) {
    return error_of([&] { read("set", file(text), bytes, options); });
  }
  TempFolder folder;
};

TEST_F(Tasks, EachTokenOfATextIsScoredOnce) {
  for (const auto& [window, stride] : {std::pair{8, 0}, {8, 8}, {8, 3}, {8, 1}, {100, 0}, {1, 1}}) {
    for (const int32_t n : {1, 7, 8, 9, 30}) {
      const auto task = text_task("t", "t", numbers(n), bytes, vocab, {.window = window, .stride = stride});
      std::vector<int32_t> scored;
      int64_t num_bytes = 0;
      for (const EvalItem& item : task.items) {
        ASSERT_EQ(item.scored.size(), 1u);
        const ScoredSequence& sequence = item.scored[0];
        EXPECT_LE(sequence.num_inputs(), window);
        EXPECT_GE(sequence.first, 1);
        scored.insert(scored.end(), sequence.tokens.begin() + sequence.first, sequence.tokens.end());
        num_bytes += item.num_bytes;
      }
      EXPECT_EQ(scored, numbers(n)) << window << " " << stride;
      EXPECT_EQ(num_bytes, n);
      EXPECT_EQ(task.items[0].scored[0].tokens[0], 256) << "the first stands behind what ends documents";
    }
  }
  // Windows that overlap give each later token at least window - stride tokens before it.
  const auto task = text_task("t", "t", numbers(30), bytes, vocab, {.window = 8, .stride = 3});
  EXPECT_EQ(task.items[1].scored[0].tokens, (std::vector<int32_t>{2, 3, 4, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(task.items[1].scored[0].first, 6);
}

TEST_F(Tasks, BadTextsAreRefused) {
  const auto error = [](const std::vector<int32_t>& tokens, const TextTaskOptions& options) {
    return error_of([&] { text_task("t", "t.txt", tokens, bytes, vocab, options); });
  };
  EXPECT_THAT(error({}, {}), HasSubstr("t.txt: 0 tokens"));
  EXPECT_THAT(error({1, 320}, {}), HasSubstr("token 1 is 320, outside the model's vocabulary of 320"));
  EXPECT_THAT(error({1, 2}, {.window = 4, .stride = 5}), HasSubstr("stride of 5"));
}

TEST_F(Tasks, PairsAreScoredAsAWhole) {
  const auto task = pairs_task("p",
                               file(R"({"UID": "u", "sentence_good": "ab", "sentence_bad": "b"})"
                                    "\n\n"
                                    R"({"sentence_good": "x", "sentence_bad": "y"})"),
                               bytes, {.max_positions = 10});
  ASSERT_EQ(task.items.size(), 2u);
  EXPECT_EQ(task.items[0].group, "u");
  EXPECT_THAT(task.items[0].scored[0].tokens, ElementsAre(256, 'a', 'b'));
  EXPECT_EQ(task.items[0].scored[0].first, 1);
  EXPECT_THAT(task.items[0].scored[1].tokens, ElementsAre(256, 'b'));
}

TEST_F(Tasks, FormsOfChoices) {
  const auto one = [&](const std::string& line) {
    const auto task = choices_task("c", file(line), bytes, {.max_positions = 100});
    EXPECT_EQ(task.items.size(), 1u);
    return task.items.at(0);
  };
  const EvalItem plain = one(R"({"query": "ab ", "choices": ["c", "de"], "gold": 1})");
  EXPECT_THAT(plain.scored[0].tokens, ElementsAre('a', 'b', ' ', ' ', 'c'));
  EXPECT_EQ(plain.scored[0].first, 2) << "blanks at the end of the question are the choice's";
  EXPECT_THAT(plain.scored[1].tokens, ElementsAre('a', 'b', ' ', ' ', 'd', 'e'));
  EXPECT_EQ(plain.gold, 1);
  EXPECT_THAT(plain.lengths, ElementsAre(1, 2));
  const EvalItem arc =
      one(R"({"question": "Q", "choices": {"text": ["u", "v"], "label": ["1", "2"]}, "answerKey": "2"})");
  EXPECT_EQ(bytes.decode(arc.scored[1].tokens), "Question: Q\nAnswer: v");
  EXPECT_EQ(arc.gold, 1);
  const EvalItem swag = one(R"({"ctx": "c", "endings": ["u", "v", "w"], "label": "2"})");
  EXPECT_EQ(swag.gold, 2);
  EXPECT_EQ(one(R"({"query": "a", "choices": ["ä€", " y"], "answer": "B"})").gold, 1);
  EXPECT_THAT(one(R"({"query": "a", "choices": ["ä€", " y"], "answer": "B"})").lengths, ElementsAre(2, 2));
}

TEST_F(Tasks, ExamplesStandBeforeQuestions) {
  write_file(folder / "few.jsonl", R"({"query": "q1", "choices": ["a", "b"], "gold": 1})"
                                   "\n"
                                   R"({"query": "q2", "choices": ["a", "b"], "gold": 0})");
  SetOptions options{.max_positions = 100, .fewshot = folder / "few.jsonl", .num_fewshot = 2};
  const std::string set = R"({"query": "q", "choices": ["a", "b"], "gold": 0})";
  const auto task = choices_task("c", file(set), bytes, options);
  EXPECT_EQ(bytes.decode(task.items[0].scored[0].tokens), "q1 b\n\nq2 a\n\nq a");
  options.max_positions = 6;
  const auto cut = choices_task("c", file(set), bytes, options);
  EXPECT_EQ(bytes.decode(cut.items[0].scored[0].tokens), " a\n\nq a") << "the last tokens are kept";
  EXPECT_EQ(cut.num_truncated, 2);
  options.num_fewshot = 3;
  EXPECT_THAT(error_of_set(choices_task, set, options), HasSubstr("2 questions, but 3"));
}

TEST_F(Tasks, AnswersAreWhatStandsBehindTheMark) {
  SetOptions options{.max_positions = 100, .max_new_tokens = 10};
  const auto task = answers_task("a",
                                 file(R"({"question": "Q", "answer": "so\n#### 1,234."})"
                                      "\n"
                                      R"({"question": "Q", "answer": "yes"})"),
                                 bytes, options);
  EXPECT_EQ(bytes.decode(task.items[0].prompt), "Question: Q\nAnswer:");
  EXPECT_EQ(task.items[0].answer, "1234");
  EXPECT_TRUE(task.items[0].marked);
  EXPECT_EQ(task.items[1].answer, "yes");
  EXPECT_EQ(strict_answer("3 and 4\n#### -1,234.5 apples #### 7"), "-1234.5");
  EXPECT_EQ(strict_answer("#### $18."), "18");
  EXPECT_EQ(strict_answer("it is 18"), "");
  EXPECT_EQ(last_number("it is 1 or $1,234.50 or so."), "1234.50");
  EXPECT_EQ(last_number("none, $."), "");
}

TEST_F(Tasks, ErrorsNameFileLineAndField) {
  const std::string good = R"({"sentence_good": "a", "sentence_bad": "b"})";
  EXPECT_THAT(error_of_set(pairs_task, good + "\n{\"a\": "),
              AllOf(HasSubstr("set.jsonl: line 2"), HasSubstr("not JSON")));
  EXPECT_THAT(error_of_set(pairs_task, good + "\n[1]"), AllOf(HasSubstr("line 2"), HasSubstr("object")));
  EXPECT_THAT(error_of_set(pairs_task, "\n" + good + R"(
{"sentence_good": "a"})"),
              AllOf(HasSubstr("line 3"), HasSubstr("\"sentence_bad\" is missing")));
  EXPECT_THAT(error_of_set(pairs_task, R"({"sentence_good": "a", "sentence_bad": 3})"), HasSubstr("sentence_bad"));
  EXPECT_THAT(error_of_set(pairs_task, R"({"sentence_good": "a", "sentence_bad": ""})"), HasSubstr("not empty"));
  EXPECT_THAT(error_of_set(pairs_task, "\n\n"), HasSubstr("set.jsonl: empty"));
  EXPECT_THAT(error_of_set(choices_task, R"({"query": "q", "gold": 0})"),
              AllOf(HasSubstr("line 1"), HasSubstr("no choices")));
  EXPECT_THAT(error_of_set(choices_task, R"({"query": "q", "choices": ["a"], "gold": 0})"), HasSubstr("at least 2"));
  EXPECT_THAT(error_of_set(choices_task, R"({"query": "q", "choices": ["a", "b"], "gold": 2})"),
              AllOf(HasSubstr("gold"), HasSubstr("0 to 1")));
  EXPECT_THAT(error_of_set(choices_task, R"({"query": "q", "choices": ["a", 1], "gold": 0})"), HasSubstr("choices"));
  EXPECT_THAT(
      error_of_set(choices_task,
                   R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"})"),
      HasSubstr("answerKey"));
  EXPECT_THAT(error_of_set(answers_task, R"({"question": "q"})", {.max_positions = 999}),
              HasSubstr("\"answer\" is missing"));
  EXPECT_THAT(error_of_set(answers_task, "{}", {.max_positions = 256}), HasSubstr("leave no room"));
  EXPECT_THAT(error_of_set(pairs_task, R"({"sentence_good": "abcdef", "sentence_bad": "b"})", {.max_positions = 3}),
              AllOf(HasSubstr("6 tokens to be judged"), HasSubstr("3 positions")));
}

TEST_F(Tasks, BatchesHoldWholeItemsUpToTheirLimits) {
  const auto task = text_task("t", "t", numbers(64), bytes, vocab, {.window = 16});
  const auto sizes = [&](const BatchLimits& limits) {
    std::vector<size_t> sizes;
    for (const ItemBatch& batch : make_batches(task, limits)) sizes.push_back(batch.num);
    return sizes;
  };
  EXPECT_THAT(sizes({.batch_tokens = 1, .max_rows = 1000}), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(sizes({.batch_tokens = 32, .max_rows = 1000}), ElementsAre(2, 2));
  EXPECT_THAT(sizes({.batch_tokens = 1000, .max_rows = 48}), ElementsAre(3, 1));
}

TEST_F(Tasks, TheDigestIsOfAllThatIsAsked) {
  const std::string set = R"({"query": "q", "choices": ["a", "b"], "gold": 0})";
  const auto digest = [&](const std::string& text) {
    return choices_task("c", file(text), bytes, {.max_positions = 100}).digest();
  };
  EXPECT_EQ(digest(set), digest(set + "\n"));
  EXPECT_NE(digest(set), digest(R"({"query": "q", "choices": ["a", "b"], "gold": 1})"));
  EXPECT_NE(digest(set), digest(R"({"query": "q", "choices": ["a", "c"], "gold": 0})"));
}

}  // namespace
}  // namespace farskip
