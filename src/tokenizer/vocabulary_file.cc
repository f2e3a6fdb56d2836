#include "tokenizer/vocabulary_file.h"

#include "base/error.h"
#include "base/files.h"

namespace farskip {

using Event = nlohmann::json::parse_event_t;

bool VocabularyCollector::operator()(int depth, Event event, nlohmann::json& parsed) {
  if (event == Event::key) {
    if (depth == 1) section_ = parsed.get<std::string>(), key_.clear();
    if (depth == 2) key_ = parsed.get<std::string>();
    if (depth == 3 && section_ == "model" && key_ == "vocab") {
      token_ = parsed.get<std::string>();
      return false;  // no member of the document
    }
    return true;
  }
  if (section_ != "model" || depth != 3) return true;
  if (key_ == "vocab" && event == Event::value) {
    add_token(token_, parsed);
  } else if (key_ == "merges" && event == Event::value) {
    if (!parsed.is_string())
      fail("{}: model.merges holds {}; a string or an array of two is expected", path_, parsed.dump());
    add_merge(parsed.get_ref<const std::string&>());
    return false;
  } else if (key_ == "merges" && event == Event::array_end) {
    if (parsed.size() != 2 || !parsed[0].is_string() || !parsed[1].is_string()) {
      fail("{}: model.merges holds {}; two strings are expected", path_, parsed.dump());
    }
    add_merge(parsed[0].get_ref<const std::string&>(), parsed[1].get_ref<const std::string&>());
    return false;
  }
  return true;
}

void VocabularyCollector::add_token(const std::string& token, const nlohmann::json& id) {
  if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxTokenId) {
    fail("{}: the vocabulary gives the token {} the id {}; 0 to {} are expected", path_, token, id.dump(), kMaxTokenId);
  }
  const auto at = id.get<size_t>();
  if (at >= tokens_.size()) tokens_.resize(std::max(at + 1, tokens_.size()));
  if (!tokens_[at].empty()) fail("{}: the vocabulary gives the id {} to {} and {}", path_, at, tokens_[at], token);
  tokens_[at] = token;
}

void VocabularyCollector::add_merge(const std::string& left, const std::string& right) {
  merges_.push_back(left);
  merges_.push_back(right);
}

void VocabularyCollector::add_merge(const std::string& line) {
  const size_t space = line.find(' ');
  if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
    fail("{}: the merge \"{}\" is not two tokens with a space between them", path_, line);
  }
  add_merge(line.substr(0, space), line.substr(space + 1));
}

void VocabularyCollector::finish(BpeParts& parts) {
  parts.tokens = std::move(tokens_);
  const TokenMap ids(parts.tokens);
  parts.merges.reserve(merges_.size() / 2);
  for (size_t i = 0; i < merges_.size(); i += 2) {
    const std::string &left = merges_[i], &right = merges_[i + 1];
    const BpeParts::Merge merge = {ids.find(left), ids.find(right), ids.find(left + right)};
    for (const auto& [id, token] : {std::pair{merge.left, left}, {merge.right, right}, {merge.merged, left + right}}) {
      if (id < 0)
        fail("{}: merge {} ({} {}) needs the token {}, which is not in the vocabulary", path_, i / 2, left, right,
             token);
    }
    parts.merges.push_back(merge);
  }
  merges_ = {};
}

nlohmann::json parse_json_file(const std::string& path, const nlohmann::json::parser_callback_t& callback) {
  const MappedFile file(path);
  const auto* text = reinterpret_cast<const char*>(file.data());
  try {
    return nlohmann::json::parse(text, text + file.size(), callback);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: no JSON: {}", path, error.what());
  }
}

}  // namespace farskip
