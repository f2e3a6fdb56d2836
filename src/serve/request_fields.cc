#include "serve/request_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "config/nearest_name.h"
#include "serve/api_error.h"

namespace farskip::serve {
namespace {

/// A value as errors show it, cut where it is long.
std::string shown(const nlohmann::json& value) {
  if (value.is_structured()) return fmt::format("{} of {}", value.type_name(), value.size());
  std::string text = dump(value);
  if (text.size() > 60) text = fmt::format("a {} of {} bytes", value.type_name(), text.size());
  return text;
}

}  // namespace

RequestFields::RequestFields(const nlohmann::json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (object.is_object()) return;
  const std::string name = where_.empty() ? "the body" : where_.substr(0, where_.find_last_not_of('.') + 1);
  refuse(where_.empty() ? "" : name, fmt::format("{} is {}; an object is expected", name, shown(object)));
}

const nlohmann::json* RequestFields::find(const std::string& name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<int64_t> RequestFields::integer(const std::string& name, int64_t minimum, int64_t maximum) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    refuse(full(name), fmt::format("{} is {}; an integer is expected", full(name), shown(*value)));
  }
  constexpr auto largest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  const bool too_large = value->is_number_unsigned() && value->get<uint64_t>() > largest;
  const int64_t number = too_large ? 0 : value->get<int64_t>();
  if (too_large || number < minimum || number > maximum) {
    refuse(full(name),
           maximum == std::numeric_limits<int64_t>::max()
               ? fmt::format("{} is {}; it must be {} or more", full(name), shown(*value), minimum)
               : fmt::format("{} is {}; it must be from {} to {}", full(name), shown(*value), minimum, maximum));
  }
  return number;
}

std::optional<double> RequestFields::number(const std::string& name, double minimum, double maximum) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    refuse(full(name), fmt::format("{} is {}; a number is expected", full(name), shown(*value)));
  }
  const double number = value->get<double>();
  if (!(number >= minimum && number <= maximum)) {
    refuse(full(name), fmt::format("{} is {}; it must be from {} to {}", full(name), shown(*value), minimum, maximum));
  }
  return number;
}

std::optional<std::string> RequestFields::text(const std::string& name) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    refuse(full(name), fmt::format("{} is {}; a string is expected", full(name), shown(*value)));
  }
  return value->get<std::string>();
}

bool RequestFields::flag(const std::string& name, bool fallback) {
  const nlohmann::json* value = find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    refuse(full(name), fmt::format("{} is {}; true or false is expected", full(name), shown(*value)));
  }
  return value->get<bool>();
}

void RequestFields::unsupported(const std::string& name, const std::vector<nlohmann::json>& harmless) {
  const nlohmann::json* value = find(name);
  if (value == nullptr || (value->is_structured() && value->empty())) return;
  if (value->is_boolean() && !value->get<bool>()) return;
  if (std::find(harmless.begin(), harmless.end(), *value) != harmless.end()) return;
  throw ApiError(400, fmt::format("{} is not supported by this server; leave it out", full(name)), full(name),
                 "unsupported_parameter");
}

void RequestFields::end() const {
  for (const auto& [name, value] : object_.items()) {
    if (known_.count(name) != 0) continue;
    const std::string nearest = nearest_name(name, {known_.begin(), known_.end()});
    const std::string shown_name = full(name.size() > 60 ? name.substr(0, 60) + "..." : name);
    throw ApiError(400,
                   fmt::format("unrecognized request argument: {}{}", shown_name,
                               nearest.empty() ? "" : "; did you mean " + full(nearest) + "?"),
                   shown_name, "unknown_parameter");
  }
}

}  // namespace farskip::serve
