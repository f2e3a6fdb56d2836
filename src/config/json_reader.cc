#include "config/json_reader.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace farskip {

using nlohmann::json;

JsonReader::JsonReader(const json& object, std::string source) : object_(object), source_(std::move(source)) {
  if (!object_.is_object()) fail("{}: a JSON object {{...}} was expected, not {}", source_, object_.type_name());
}

const json* JsonReader::find(const std::string& key) const {
  auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const json& JsonReader::get(const std::string& key) const {
  const json* value = find(key);
  if (!value)
    fail("{}: the key \"{}\" is {}; it has no default", source_, key, object_.contains(key) ? "null" : "missing");
  return *value;
}

bool JsonReader::has(const std::string& key) const { return find(key) != nullptr; }

int64_t JsonReader::integer(const std::string& key, int64_t minimum) const {
  const json& value = get(key);
  if (!value.is_number_integer() || value.get<int64_t>() < minimum) {
    refuse(key, fmt::format("an integer of at least {} was expected", minimum));
  }
  return value.get<int64_t>();
}

int64_t JsonReader::integer_or_null(const std::string& key) const {
  if (!object_.contains(key)) {
    fail("{}: the key \"{}\" is missing; give a positive integer, or null where the model has none", source_, key);
  }
  return has(key) ? integer(key, 0) : 0;
}

int64_t JsonReader::integer(const std::string& key, int64_t minimum, int64_t fallback) const {
  return has(key) ? integer(key, minimum) : fallback;
}

double JsonReader::number(const std::string& key, double fallback) const {
  const json* value = find(key);
  if (!value) return fallback;
  if (!value->is_number()) refuse(key, "a number was expected");
  return value->get<double>();
}

double JsonReader::positive(const std::string& key, double fallback) const {
  const double value = number(key, fallback);
  if (!(value > 0) || !std::isfinite(value)) refuse(key, "a positive number was expected");
  return value;
}

bool JsonReader::flag(const std::string& key, bool fallback) const {
  const json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean()) refuse(key, "true or false was expected");
  return value->get<bool>();
}

bool JsonReader::flag_or_number(const std::string& key, bool fallback) const {
  const json* value = find(key);
  return value && value->is_number() ? value->get<double>() != 0 : flag(key, fallback);
}

std::string JsonReader::text(const std::string& key, const std::string& fallback) const {
  const json* value = find(key);
  if (!value) return fallback;
  if (!value->is_string()) refuse(key, "a string was expected");
  return value->get<std::string>();
}

std::vector<int64_t> JsonReader::integers(const std::string& key) const {
  const json* value = find(key);
  if (!value) return {};
  if (!value->is_array()) refuse(key, "a list of integers was expected");
  for (const json& entry : *value) {
    if (!entry.is_number_integer()) refuse(key, "a list of integers was expected");
  }
  return value->get<std::vector<int64_t>>();
}

std::vector<std::string> JsonReader::texts(const std::string& key) const {
  const json* value = find(key);
  if (!value) return {};
  const bool fits =
      value->is_array() && std::all_of(value->begin(), value->end(), [](auto& x) { return x.is_string(); });
  if (!fits) refuse(key, "a list of strings was expected");
  return value->get<std::vector<std::string>>();
}

JsonReader JsonReader::object(const std::string& key) const { return JsonReader(get(key), source_ + ": " + key); }

void JsonReader::require(const std::string& key, const json& only, const std::string& reason) const {
  const json* value = find(key);
  if (value && *value != only) refuse(key, fmt::format("{}; only {} is supported", reason, only.dump()));
}

void JsonReader::refuse(const std::string& key, const std::string& expected) const {
  auto found = object_.find(key);
  fail("{}: {} = {}: {}", source_, key, found == object_.end() ? "(absent)" : found->dump(), expected);
}

void JsonReader::refuse(const std::string& problem) const { fail("{}: {}", source_, problem); }

}  // namespace farskip
