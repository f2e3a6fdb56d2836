#pragma once
// Vocabulary and merges as the JSON parser meets them.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tokenizer/bpe.h"

namespace farskip {

/// Largest id a vocabulary may name.
constexpr int64_t kMaxTokenId = int64_t{1} << 24;

/// Collects tokens and merges; `path` begins errors.
class VocabularyCollector {
 public:
  explicit VocabularyCollector(std::string path) : path_(std::move(path)) {}

  /// A callback of the parser: takes model.vocab and model.merges out of the document.
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed);
  void add_token(const std::string& token, const nlohmann::json& id);
  void add_merge(const std::string& left, const std::string& right);
  /// "LEFT RIGHT".
  void add_merge(const std::string& line);

  /// Tokens by id, and merges by rank with their ids. Throws Error where a merge is of or into no token.
  void finish(BpeParts& parts);

 private:
  std::string path_;
  std::string section_, key_;  ///< keys of depth 1 and 2
  std::string token_;
  std::vector<std::string> tokens_;
  std::vector<std::string> merges_;  ///< LEFT, RIGHT in turns
};

/// `parse(path)` with a callback and errors for people.
nlohmann::json parse_json_file(const std::string& path, const nlohmann::json::parser_callback_t& callback = nullptr);

}  // namespace farskip
