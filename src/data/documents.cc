#include "data/documents.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <utility>
#include <vector>

#include "base/error.h"

namespace farskip {
namespace {

/// std::regex recurses on its subject: longer lines (which are no headings) are not matched.
constexpr size_t kMaxMatchedLine = 4096;

class TextSplitter : public DocumentSplitter {
 public:
  TextSplitter(const DocumentRules& rules, Emit emit) : separator_(rules.separator), emit_(std::move(emit)) {
    if (rules.start.empty()) return;
    try {
      start_.emplace(rules.start, std::regex::ECMAScript | std::regex::optimize);
    } catch (const std::regex_error& error) {
      fail("document start \"{}\": not a regular expression: {}", rules.start, error.what());
    }
  }

  void add_line(std::string_view line) override {
    if (begins_document(line) && !document_.empty()) emit_(std::exchange(document_, {}));
    // A separator may have begun in the lines before.
    size_t from = document_.size() < separator_.size() ? 0 : document_.size() - separator_.size() + 1;
    document_ += line;
    if (separator_.empty()) return;
    size_t begin = 0;
    for (size_t at; (at = document_.find(separator_, from)) != std::string::npos;) {
      emit_(std::string_view(document_).substr(begin, at - begin));
      begin = from = at + separator_.size();
    }
    document_.erase(0, begin);
  }

  void finish() override {
    if (!document_.empty()) emit_(std::exchange(document_, {}));
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
};

class JsonlSplitter : public DocumentSplitter {
 public:
  JsonlSplitter(const DocumentRules& rules, std::string source, Emit emit)
      : key_(rules.json_key), source_(std::move(source)), emit_(std::move(emit)) {}

  void add_line(std::string_view line) override {
    ++line_number_;
    if (line.find_first_not_of(" \t\r\n") == std::string_view::npos) return;
    nlohmann::json object;
    try {
      object = nlohmann::json::parse(line.begin(), line.end());
    } catch (const nlohmann::json::exception& error) {
      fail("{}:{}: not JSON ({}); every line must be one object", source_, line_number_, error.what());
    }
    if (!object.is_object()) {
      fail("{}:{}: a JSON {}, but every line must be an object", source_, line_number_, object.type_name());
    }
    const auto found = object.find(key_);
    if (found == object.end()) {
      std::vector<std::string> keys;
      for (const auto& item : object.items()) keys.push_back(item.key());
      fail("{}:{}: no key \"{}\"; the keys there: {}; name the one that holds the text", source_, line_number_, key_,
           fmt::join(keys, ", "));
    }
    if (!found->is_string()) {
      fail("{}:{}: key \"{}\" holds a JSON {}, but a document is a string", source_, line_number_, key_,
           found->type_name());
    }
    emit_(found->get_ref<const std::string&>());
  }

  void finish() override {}

 private:
  std::string key_;
  std::string source_;
  Emit emit_;
  int64_t line_number_ = 0;
};

bool is_jsonl(const DocumentRules& rules, const std::string& source) {
  if (rules.format != TextFormat::automatic) return rules.format == TextFormat::jsonl;
  return source.ends_with(".jsonl") || source.ends_with(".ndjson");
}

}  // namespace

std::unique_ptr<DocumentSplitter> make_splitter(const DocumentRules& rules, const std::string& source,
                                                DocumentSplitter::Emit emit) {
  if (is_jsonl(rules, source)) return std::make_unique<JsonlSplitter>(rules, source, std::move(emit));
  return std::make_unique<TextSplitter>(rules, std::move(emit));
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
