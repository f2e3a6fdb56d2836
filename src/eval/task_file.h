#pragma once
// Sets of questions as JSONL: an object on each line.

#include <functional>
#include <string>
#include <vector>

#include "config/json_reader.h"

namespace farskip {

/// Calls `body` with each object of a file, up to `limit` of them (0: all); empty lines are passed over. Errors begin
/// with "FILE: line N". Throws Error for a line that is no JSON object and for a file without any.
void for_each_line(const std::string& file, int64_t limit,
                   const std::function<void(const nlohmann::json& object, const JsonReader& fields)>& body);

/// A field that must be a text that is not empty.
std::string required_text(const JsonReader& fields, const std::string& key);

/// A question with choices, in any of the forms of docs/eval.md.
struct ChoiceQuestion {
  std::string context;
  std::vector<std::string> choices;  ///< at least two
  int64_t gold = 0;
};
ChoiceQuestion read_choices(const nlohmann::json& object, const JsonReader& fields);

/// A question with an answer.
struct AnswerQuestion {
  std::string context, solution;
  std::string answer;   ///< what counts: behind "####", or the whole solution
  bool marked = false;  ///< there is a "####"
};
AnswerQuestion read_answer(const JsonReader& fields);

/// What a continuation says: the number behind the first "####", or the last number of it; empty where there is none.
std::string strict_answer(const std::string& text);
std::string last_number(const std::string& text);
/// Without commas, dollar signs, blanks around it and the full stop at the end, as lm-evaluation-harness compares.
std::string plain_answer(const std::string& text);

}  // namespace farskip
