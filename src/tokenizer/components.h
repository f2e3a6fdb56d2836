#pragma once
// The components of a tokenizer.json between text and model: what they are read from, and errors for those unknown.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace farskip {

/// A JSON object {"type": TYPE, ...} of a tokenizer.json. Errors name the file and the component.
class Component {
 public:
  /// `where` is "PATH: normalizer".
  Component(const nlohmann::json& json, std::string where);

  const std::string& type() const { return type_; }
  /// Of a key that may be absent or null. Throws Error for another type.
  bool flag(const char* key, bool fallback) const;
  int64_t integer(const char* key, int64_t fallback) const;
  /// Required.
  std::string text(const char* key) const;
  std::string text(const char* key, const std::string& fallback) const;
  /// The objects of the array `key`, required.
  std::vector<Component> list(const char* key) const;
  const nlohmann::json& json() const { return json_; }

  /// {"String": TEXT} or {"Regex": TEXT} under "pattern".
  struct PatternText {
    bool is_regex;
    std::string text;
  };
  PatternText pattern() const;

  /// Throws Error: WHERE TYPE: `problem`.
  [[noreturn]] void refuse(std::string_view problem) const;
  /// Throws Error that TYPE is none of `supported`.
  [[noreturn]] void refuse_type(std::string_view supported) const;

 private:
  template <typename T>
  T value(const char* key, const char* kind, const T* fallback) const;

  const nlohmann::json& json_;
  std::string where_, type_;
};

}  // namespace farskip
