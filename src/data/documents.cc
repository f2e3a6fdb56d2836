#include "data/documents.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/chat.h"

namespace farskip {
namespace {

/// std::regex recurses on its subject: longer lines (which are no headings) are not matched.
constexpr size_t kMaxMatchedLine = 4096;

class TextCutter : public RecordCutter {
 public:
  TextCutter(const DocumentRules& rules, Emit emit) : separator_(rules.separator), emit_(std::move(emit)) {
    if (rules.start.empty()) return;
    try {
      start_.emplace(rules.start, std::regex::ECMAScript | std::regex::optimize);
    } catch (const std::regex_error& error) {
      fail("document start \"{}\": not a regular expression: {}", rules.start, error.what());
    }
  }

  void add_line(std::string_view line) override {
    if (begins_document(line) && !document_.empty()) emit_(std::exchange(document_, {}), line_number_);
    ++line_number_;
    // A separator may have begun in the lines before.
    size_t from = document_.size() < separator_.size() ? 0 : document_.size() - separator_.size() + 1;
    document_ += line;
    if (separator_.empty()) return;
    size_t begin = 0;
    for (size_t at; (at = document_.find(separator_, from)) != std::string::npos;) {
      emit_(std::string_view(document_).substr(begin, at - begin), line_number_);
      begin = from = at + separator_.size();
    }
    document_.erase(0, begin);
  }

  void finish() override {
    if (!document_.empty()) emit_(std::exchange(document_, {}), line_number_);
  }

 private:
  bool begins_document(std::string_view line) const {
    if (!start_ || line.size() > kMaxMatchedLine) return false;
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
    return std::regex_search(line.begin(), line.end(), *start_);
  }

  std::string separator_;
  std::optional<std::regex> start_;
  Emit emit_;
  std::string document_;
  int64_t line_number_ = 0;
};

class LineCutter : public RecordCutter {
 public:
  explicit LineCutter(Emit emit) : emit_(std::move(emit)) {}

  void add_line(std::string_view line) override {
    ++line_number_;
    if (line.find_first_not_of(" \t\r\n") != std::string_view::npos) emit_(line, line_number_);
  }
  void finish() override {}

 private:
  Emit emit_;
  int64_t line_number_ = 0;
};

nlohmann::json parse_object(std::string_view line) {
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(line.begin(), line.end());
  } catch (const nlohmann::json::exception& error) {
    fail("not JSON ({}); every line must be one object", error.what());
  }
  if (!object.is_object()) fail("a JSON {}, but every line must be an object", object.type_name());
  return object;
}

Document text_document(nlohmann::json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end()) {
    std::vector<std::string> keys;
    for (const auto& item : object.items()) keys.push_back(item.key());
    fail("no key \"{}\"; the keys there: {}; name the one that holds the text", key, fmt::join(keys, ", "));
  }
  if (!found->is_string()) {
    fail("key \"{}\" holds a JSON {}, but a document is a string", key, found->type_name());
  }
  return {std::move(found->get_ref<std::string&>()), ""};
}

}  // namespace

TextFormat format_of(const DocumentRules& rules, const std::string& source) {
  if (rules.format != TextFormat::automatic) return rules.format;
  return source.ends_with(".jsonl") || source.ends_with(".ndjson") ? TextFormat::jsonl : TextFormat::text;
}

std::unique_ptr<RecordCutter> make_cutter(const DocumentRules& rules, const std::string& source,
                                          RecordCutter::Emit emit) {
  if (format_of(rules, source) == TextFormat::text) return std::make_unique<TextCutter>(rules, std::move(emit));
  return std::make_unique<LineCutter>(std::move(emit));
}

Document parse_record(const DocumentRules& rules, const std::string& source, std::string_view record, int64_t line) {
  const TextFormat format = format_of(rules, source);
  if (format == TextFormat::text) return {std::string(record), ""};
  try {
    nlohmann::json object = parse_object(record);
    return format == TextFormat::chat ? chat_document(object, rules.chat.get()) : text_document(object, rules.json_key);
  } catch (const Error& error) {
    fail("{}:{}: {}", source, line, error.what());
  }
}

std::string unescape(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      plain += text[i];
      continue;
    }
    switch (text[++i]) {
      case 'n':
        plain += '\n';
        break;
      case 't':
        plain += '\t';
        break;
      case 'r':
        plain += '\r';
        break;
      case '0':
        plain += '\0';
        break;
      case '\\':
        plain += '\\';
        break;
      default:
        fail("\"{}\": unknown escape \\{}; known are \\n \\t \\r \\0 \\\\", text, text[i]);
    }
  }
  return plain;
}

}  // namespace farskip
