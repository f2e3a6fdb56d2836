#include "eval/task_file.h"

#include <algorithm>
#include <array>
#include <regex>

#include "base/error.h"
#include "base/files.h"

namespace farskip {

using nlohmann::json;

namespace {

/// The first of `keys` that is there.
std::string one_of(const JsonReader& fields, std::initializer_list<const char*> keys, const char* what) {
  std::string list;
  for (const char* key : keys) {
    if (fields.has(key)) return key;
    list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", key);
  }
  fields.refuse(fmt::format("no {}: one of the fields {} was expected", what, list));
}

std::string question_of(const std::string& question) { return "Question: " + question + "\nAnswer:"; }

std::vector<std::string> texts_in(const json& list, const JsonReader& fields, const std::string& key) {
  if (!list.is_array()) fields.refuse(key, "a list of texts was expected");
  std::vector<std::string> texts;
  for (const json& text : list) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty())
      fields.refuse(key, "texts that are not empty were expected");
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

int64_t gold_of(const json& value, const JsonReader& fields, const std::string& key,
                const std::vector<std::string>& labels, int64_t num_choices) {
  int64_t gold = -1;
  if (value.is_number_integer()) gold = value.get<int64_t>();
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const auto label = std::find(labels.begin(), labels.end(), text);
    if (!labels.empty()) {
      gold = label == labels.end() ? -1 : label - labels.begin();
    } else if (text.size() == 1 && text[0] >= 'A' && text[0] <= 'Z') {
      gold = text[0] - 'A';
    } else if (text.size() == 1 && text[0] >= '0' && text[0] <= '9') {
      gold = text[0] - '0';
    }
  }
  if (gold < 0 || gold >= num_choices) {
    fields.refuse(key, fmt::format("the right one of {} choices was expected: 0 to {}, or its label", num_choices,
                                   num_choices - 1));
  }
  return gold;
}

}  // namespace

void for_each_line(const std::string& file, int64_t limit,
                   const std::function<void(const json& object, const JsonReader& fields)>& body) {
  const std::string all = read_file(file);
  int64_t number = 0, num_objects = 0;
  for (size_t begin = 0; begin < all.size() && (limit == 0 || num_objects < limit);) {
    const size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view line = std::string_view(all).substr(begin, end - begin);
    begin = end + 1;
    const std::string source = fmt::format("{}: line {}", file, ++number);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    json object;
    try {
      object = json::parse(line);
    } catch (const json::exception& error) {
      fail("{}: not JSON, though each line must be an object: {}", source, error.what());
    }
    body(object, JsonReader(object, source));
    ++num_objects;
  }
  if (num_objects == 0) fail("{}: empty, though each line must be a JSON object", file);
}

std::string required_text(const JsonReader& fields, const std::string& key) {
  if (!fields.has(key)) fields.refuse(fmt::format("the field \"{}\" is missing", key));
  const std::string text = fields.text(key, "");
  if (text.empty()) fields.refuse(key, "a text that is not empty was expected");
  return text;
}

ChoiceQuestion read_choices(const json& object, const JsonReader& fields) {
  ChoiceQuestion result;
  const std::string query = one_of(fields, {"query", "ctx", "question"}, "question");
  const std::string text = required_text(fields, query);
  result.context = query == "question" ? question_of(text) : text;
  const std::string key = one_of(fields, {"choices", "endings"}, "choices");
  const json& choices = object.at(key);
  std::vector<std::string> labels;
  if (choices.is_object()) {
    const JsonReader parts = fields.object(key);
    if (!parts.has("text")) parts.refuse("the field \"text\" is missing");
    result.choices = texts_in(choices.at("text"), parts, "text");
    if (parts.has("label")) labels = texts_in(choices.at("label"), parts, "label");
    if (!labels.empty() && labels.size() != result.choices.size()) {
      parts.refuse(fmt::format("{} labels for {} choices", labels.size(), result.choices.size()));
    }
  } else {
    result.choices = texts_in(choices, fields, key);
  }
  if (result.choices.size() < 2)
    fields.refuse(fmt::format("{} choices; at least 2 were expected", result.choices.size()));
  const std::string gold = one_of(fields, {"gold", "answer", "answerKey", "label"}, "right choice");
  result.gold = gold_of(object.at(gold), fields, gold, labels, std::ssize(result.choices));
  return result;
}

AnswerQuestion read_answer(const JsonReader& fields) {
  AnswerQuestion result;
  result.context = question_of(required_text(fields, "question"));
  result.solution = required_text(fields, "answer");
  const size_t mark = result.solution.rfind("####");
  result.marked = mark != std::string::npos;
  result.answer = plain_answer(result.marked ? result.solution.substr(mark + 4) : result.solution);
  if (result.answer.empty()) fields.refuse("answer", "an answer behind \"####\" was expected");
  return result;
}

std::string plain_answer(const std::string& text) {
  std::string plain;
  for (const char c : text) {
    if (c != ',' && c != '$') plain += c;
  }
  const char* blank = " \t\r\n";
  plain.erase(0, std::min(plain.find_first_not_of(blank), plain.size()));
  plain.erase(plain.find_last_not_of(blank) + 1);
  if (plain.ends_with('.')) plain.pop_back();
  return plain;
}

std::string strict_answer(const std::string& text) {
  static const std::regex pattern(R"(#### ?(\$?-?[0-9][0-9.,]*))");
  std::smatch found;
  return std::regex_search(text, found, pattern) ? plain_answer(found[1]) : "";
}

std::string last_number(const std::string& text) {
  static const std::regex pattern(R"(-?[$0-9][$0-9.,]*)");
  std::string last;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), pattern); it != std::sregex_iterator(); ++it) {
    const std::string plain = plain_answer(it->str());
    if (plain.find_first_of("0123456789") != std::string::npos) last = plain;
  }
  return last;
}

}  // namespace farskip
