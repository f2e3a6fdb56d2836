#pragma once
// The fields of a request's JSON object. null counts as absent. Whatever is wrong throws ApiError 400 naming the field.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace farskip::serve {

class RequestFields {
 public:
  /// `where` stands before a field's name in errors ("messages[0]."). REQUIRES: `object` outlives it. Throws where
  /// `object` is none.
  explicit RequestFields(const nlohmann::json& object, std::string where = "");

  /// nullptr where absent or null.
  const nlohmann::json* find(const std::string& name);
  std::optional<int64_t> integer(const std::string& name, int64_t minimum, int64_t maximum);
  std::optional<double> number(const std::string& name, double minimum, double maximum);
  std::optional<std::string> text(const std::string& name);
  bool flag(const std::string& name, bool fallback);

  /// Known and without any effect on what is generated.
  void ignore(const std::string& name) { known_.insert(name); }
  /// Not supported: refused unless absent, null, false, an empty list or object, or equal to one of `harmless`.
  void unsupported(const std::string& name, const std::vector<nlohmann::json>& harmless = {});
  /// Refuses fields that were never asked for, with the nearest name that was.
  void end() const;

  /// The name as errors say it.
  std::string full(const std::string& name) const { return where_ + name; }

 private:
  const nlohmann::json& object_;
  std::string where_;
  std::set<std::string> known_;
};

}  // namespace farskip::serve
