#include "tokenizer/components.h"

#include "base/error.h"

namespace farskip {

Component::Component(const nlohmann::json& json, std::string where) : json_(json), where_(std::move(where)) {
  if (!json.is_object() || !json.contains("type") || !json["type"].is_string()) {
    fail("{}: a JSON object with a \"type\" is expected, not {}", where_, json.dump().substr(0, 80));
  }
  type_ = json["type"].get<std::string>();
}

template <typename T>
T Component::value(const char* key, const char* kind, const T* fallback) const {
  const auto found = json_.find(key);
  if (found == json_.end() || found->is_null()) {
    if (fallback == nullptr) refuse(fmt::format("has no {} ({})", key, kind));
    return *fallback;
  }
  try {
    return found->get<T>();
  } catch (const nlohmann::json::exception&) {
    refuse(fmt::format("{} = {} is no {}", key, found->dump().substr(0, 80), kind));
  }
}

bool Component::flag(const char* key, bool fallback) const { return value<bool>(key, "bool", &fallback); }
int64_t Component::integer(const char* key, int64_t fallback) const {
  return value<int64_t>(key, "integer", &fallback);
}
std::string Component::text(const char* key) const { return value<std::string>(key, "string", nullptr); }
std::string Component::text(const char* key, const std::string& fallback) const {
  return value<std::string>(key, "string", &fallback);
}

std::vector<Component> Component::list(const char* key) const {
  const auto found = json_.find(key);
  if (found == json_.end() || !found->is_array()) refuse(fmt::format("has no array {}", key));
  std::vector<Component> items;
  for (const auto& item : *found) items.emplace_back(item, where_);
  return items;
}

Component::PatternText Component::pattern() const {
  const auto found = json_.find("pattern");
  if (found != json_.end() && found->is_object()) {
    for (const bool is_regex : {false, true}) {
      const auto text = found->find(is_regex ? "Regex" : "String");
      if (text != found->end() && text->is_string()) return {is_regex, text->get<std::string>()};
    }
  }
  refuse("has no pattern {\"String\": ...} or {\"Regex\": ...}");
}

void Component::refuse(std::string_view problem) const { fail("{} {}: {}", where_, type_, problem); }

void Component::refuse_type(std::string_view supported) const {
  fail("{} {} is not supported; supported are {}", where_, type_, supported);
}

}  // namespace farskip
