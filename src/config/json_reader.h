#pragma once
// Typed reading of a JSON object written by others: every error names the file, the key, the value found and the one
// expected.

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace farskip {

/// A view of one JSON object; `source` (a path, a URL, "PATH: rope_scaling") begins every error. REQUIRES: `object`
/// outlives the reader. All readers throw Error; a key that is null counts as absent unless said otherwise.
class JsonReader {
 public:
  JsonReader(const nlohmann::json& object, std::string source);

  bool has(const std::string& key) const;

  /// A required integer >= minimum.
  int64_t integer(const std::string& key, int64_t minimum = 1) const;
  /// A required key whose null means 0: for shapes whose absence would otherwise be guessed (q_lora_rank: null).
  int64_t integer_or_null(const std::string& key) const;
  /// With a default.
  int64_t integer(const std::string& key, int64_t minimum, int64_t fallback) const;
  double number(const std::string& key, double fallback) const;
  double positive(const std::string& key, double fallback) const;
  bool flag(const std::string& key, bool fallback) const;
  bool flag_or_number(const std::string& key, bool fallback) const;  ///< a number other than 0 is true
  std::string text(const std::string& key, const std::string& fallback) const;
  std::vector<int64_t> integers(const std::string& key) const;   ///< absent: empty
  std::vector<std::string> texts(const std::string& key) const;  ///< absent: empty
  JsonReader object(const std::string& key) const;               ///< required

  /// Refuses any value but `only` (or the key's absence); `reason` says what is not supported.
  void require(const std::string& key, const nlohmann::json& only, const std::string& reason) const;
  /// Throws: SOURCE: KEY = VALUE: `expected`.
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const;
  /// Throws: SOURCE: `problem`.
  [[noreturn]] void refuse(const std::string& problem) const;

 private:
  const nlohmann::json* find(const std::string& key) const;
  const nlohmann::json& get(const std::string& key) const;

  const nlohmann::json& object_;
  std::string source_;
};

}  // namespace farskip
