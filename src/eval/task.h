#pragma once
// What is evaluated: a text, minimal pairs, questions with choices, questions with answers. Each becomes items,
// sequences of tokens to be judged or continued, before any weight is read; docs/eval.md has the formats.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/task_text.h"

namespace farskip {

enum class TaskKind : uint8_t { text, pairs, choices, answers };
const char* to_string(TaskKind kind);

/// The model says how likely tokens[first], tokens[first + 1], ... are, each behind all before it.
struct ScoredSequence {
  std::vector<int32_t> tokens;
  int64_t first = 1;  ///< 1 <= first < tokens.size()

  int64_t num_inputs() const { return std::ssize(tokens) - 1; }  ///< the last token is not read
  int64_t num_scored() const { return std::ssize(tokens) - first; }
};

struct EvalItem {
  std::vector<ScoredSequence> scored = {};  ///< text: one window; pairs: good, bad; choices: one each
  std::vector<int32_t> prompt = {};         ///< answers: what is continued
  std::string group = {};                   ///< pairs: the paradigm, may be empty
  int64_t num_bytes = 0;                    ///< text: of the scored tokens
  int64_t gold = 0;                         ///< choices: the right one
  std::vector<int64_t> lengths = {};        ///< choices: characters of each
  std::string answer = {};                  ///< answers: the right one
  bool marked = false;                      ///< answers: it stands behind "####"
};

struct EvalTask {
  TaskKind kind = TaskKind::text;
  std::string name, file;
  nlohmann::json settings = nlohmann::json::object();  ///< that decide what is asked
  std::vector<EvalItem> items;
  int64_t num_truncated = 0;       ///< sequences that lost tokens at their beginning: the model has too few positions
  int64_t max_new_tokens = 0;      ///< answers
  std::vector<std::string> stops;  ///< answers

  /// SHA-256 of all that is asked, tokens and right answers.
  std::string digest() const;
};

struct TextTaskOptions {
  int64_t window = 1024;  ///< tokens that a prediction may look back on at most
  int64_t stride = 0;     ///< tokens scored by each window but the first, which scores `window`; 0: as many as window
};

/// Of a text's tokens each is scored once; the first behind begin_token(). Throws Error for ids outside the vocabulary,
/// a stride that is not 1 to window, and a text without a token that can be scored.
EvalTask text_task(const std::string& name, const std::string& file, const std::vector<int32_t>& tokens,
                   const TaskText& text, int64_t vocab_size, const TextTaskOptions& options);

struct SetOptions {
  int64_t max_positions = 0;  ///< of the model
  int64_t limit = 0;          ///< the first items alone; 0: all
  std::string fewshot = {};   ///< JSONL of the same form, whose items stand before each question; empty: none
  int64_t num_fewshot = 5;    ///< so many of them
  int64_t max_new_tokens = 256;
  std::vector<std::string> stops = {};  ///< empty: "Question:"
};

/// Of JSONL files; errors name the file, the line and the field.
EvalTask pairs_task(const std::string& name, const std::string& file, const TaskText& text, const SetOptions& options);
EvalTask choices_task(const std::string& name, const std::string& file, const TaskText& text,
                      const SetOptions& options);
EvalTask answers_task(const std::string& name, const std::string& file, const TaskText& text,
                      const SetOptions& options);

}  // namespace farskip
