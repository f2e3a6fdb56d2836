#include "tests/fuzz/mutations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace farskip::fuzz {
namespace {

using Json = nlohmann::ordered_json;

const std::vector<std::string> odd_numbers = {"-1",
                                              "0",
                                              "1",
                                              "1.5",
                                              "-0",
                                              "1e400",
                                              "4294967296",
                                              "9223372036854775807",
                                              "9223372036854775808",
                                              "18446744073709551615",
                                              "18446744073709551616",
                                              "99999999999999999999999999",
                                              "null",
                                              "true",
                                              "\"7\"",
                                              "[]",
                                              "{}"};
const std::vector<std::string> dtypes = {"F64", "F32",  "F16",     "BF16",    "I64",     "I32", "I16", "I8",
                                         "U8",  "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4",  "",    "f32"};
const std::string alphabet = "{}[]\",:0123456789-eE.\\u FBI\xff";

std::string with_length(uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + rest;
}

}  // namespace

std::string Mutator::number(int64_t near) {
  if (below(2) == 0) return one_of(odd_numbers);
  return std::to_string(near + static_cast<int64_t>(below(17)) - 8);
}

std::string Mutator::list(const Json& values) {
  std::string text = "[";
  const size_t victim = below(values.size() + 1);
  for (size_t i = 0; i < values.size(); ++i) {
    text += i > 0 ? "," : "";
    text += i == victim && values[i].is_number_integer() ? number(values[i].get<int64_t>()) : values[i].dump();
  }
  if (below(8) == 0) text += (values.empty() ? "" : ",") + number(1);
  if (below(64) == 0) {
    for (size_t i = below(40); i > 0; --i) text += ",1";
  }
  return text + "]";
}

std::string Mutator::value(const Json& found) {
  if (found.is_array()) return below(8) == 0 ? one_of(odd_numbers) : list(found);
  if (found.is_string()) return below(4) == 0 ? one_of(odd_numbers) : "\"" + one_of(dtypes) + "\"";
  return one_of(odd_numbers);
}

std::string Mutator::entry(const Json& tensor, bool damaged) {
  if (!damaged) return tensor.dump();
  std::string text = "{";
  const size_t victim = below(tensor.size());
  size_t i = 0;
  for (const auto& [key, found] : tensor.items()) {
    const bool here = i++ == victim;
    if (here && below(12) == 0) continue;  // a key less
    if (text.size() > 1) text += ",";
    text += fmt::format("\"{}\":{}", key, here ? value(found) : found.dump());
    if (here && below(12) == 0) text += fmt::format(",\"{}\":{}", key, value(found));  // a key twice
  }
  if (below(16) == 0) text += fmt::format("{}\"extra\":{}", text.size() > 1 ? "," : "", one_of(odd_numbers));
  return text + "}";
}

std::string Mutator::header(const Json& valid) {
  if (below(64) == 0) {  // nesting without end
    const size_t depth = 1 + below(20000);
    return below(2) ? std::string(depth, '[') : fmt::format("{{\"w\":{}1", std::string(depth, '['));
  }
  std::vector<std::string> items;
  const size_t victim = below(valid.size());
  size_t i = 0;
  for (const auto& [name, tensor] : valid.items()) {
    const std::string key = Json(below(40) == 0 ? "__metadata__" : below(40) == 0 ? "a" : name).dump();
    items.push_back(key + ":" + entry(tensor, i == victim && tensor.is_object() && !tensor.empty()));
    if (below(24) == 0) items.push_back(items.back());
    if (below(24) == 0) items.pop_back();
    ++i;
  }
  if (below(8) == 0) std::shuffle(items.begin(), items.end(), random_);
  if (below(200) == 0) {
    for (size_t k = below(2000); k > 0; --k) {
      items.push_back(fmt::format(R"("t{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", k));
    }
  }
  std::string text = "{";
  for (const auto& item : items) text += (text.size() > 1 ? "," : "") + item;
  text += "}";
  if (below(10) == 0) damage_bytes(text);
  text.append(below(4) == 0 ? below(9) : (8 - text.size() % 8) % 8, ' ');
  return text;
}

void Mutator::damage_bytes(std::string& text) {
  for (size_t changes = 1 + below(4); changes > 0 && !text.empty(); --changes) {
    // Headers are more interesting than values.
    const size_t at = below(4) == 0 ? below(text.size()) : below(std::min<size_t>(text.size(), 16 + below(600)));
    switch (below(7)) {
      case 0:
        text[at] = static_cast<char>(random_());
        break;
      case 1:
        text[at] = alphabet[below(alphabet.size())];
        break;
      case 2:
        text.erase(at, 1 + below(8));
        break;
      case 3:
        text.insert(at, 1 + below(3), alphabet[below(alphabet.size())]);
        break;
      case 4:
        text.resize(at);
        break;
      case 5:
        text.insert(at, text.substr(below(text.size()), below(64)));
        break;
      default:
        text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
    }
  }
}

std::string Mutator::file(const std::string& valid) {
  uint64_t length = 0;
  std::memcpy(&length, valid.data(), sizeof(length));
  std::string text = valid.substr(sizeof(length), length), data = valid.substr(sizeof(length) + length);
  switch (below(4)) {
    case 0: {
      std::string file = valid;
      damage_bytes(file);
      return file;
    }
    case 1: {  // a length that lies
      const std::vector<uint64_t> lengths = {0,
                                             1,
                                             length - 1,
                                             length + 1,
                                             length + data.size(),
                                             100'000'000,
                                             100'000'001,
                                             1ull << 32,
                                             (1ull << 63) - 1,
                                             1ull << 63,
                                             ~0ull,
                                             ~0ull - 7,
                                             random_(),
                                             length ^ (1ull << below(64))};
      return with_length(one_of(lengths), text + data);
    }
    default: {
      const std::string changed = header(Json::parse(text));
      if (below(6) == 0) data.resize(below(data.size() + 16));
      return with_length(changed.size(), changed + data);
    }
  }
}

std::string Mutator::index(const std::string& valid) {
  if (below(2) == 0) {
    std::string text = valid;
    damage_bytes(text);
    return text;
  }
  Json json = Json::parse(valid);
  auto& map = json["weight_map"];
  const std::vector<std::string> files = {"",
                                          ".",
                                          "..",
                                          "../x",
                                          "/etc/passwd",
                                          "/dev/zero",
                                          "a/b",
                                          "gone.safetensors",
                                          "model.safetensors.index.json",
                                          "model-00001-of-00002.safetensors",
                                          "model-00002-of-00002.safetensors",
                                          std::string(5000, 'x'),
                                          std::string("\0a", 2)};
  std::vector<std::string> names;
  for (const auto& item : map.items()) names.push_back(item.key());
  const std::string name = one_of(names);
  switch (below(5)) {
    case 0:
      map.erase(name);
      break;
    case 1:
      map["another"] = one_of(files);
      break;
    case 2:
      map[name] = Json::array({1, 2});
      break;
    case 3:
      json.erase("weight_map");
      break;
    default:
      map[name] = one_of(files);
  }
  return json.dump();
}

}  // namespace farskip::fuzz
