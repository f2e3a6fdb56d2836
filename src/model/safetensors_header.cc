#include "model/safetensors_header.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"

namespace farskip {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little endian");

using Json = nlohmann::json;

constexpr uint64_t max_header_bytes = 100'000'000;  // the limit of the format's own library
constexpr size_t max_dimensions = 16;
constexpr int max_depth = 3;  // file, tensor, list

struct DtypeRow {
  std::string_view name;
  at::ScalarType type;
};

constexpr std::array<DtypeRow, 12> dtype_table = {{
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
}};

at::ScalarType parse_dtype(const std::string& text, const std::string& where) {
  for (const auto& row : dtype_table) {
    if (row.name == text) return row.type;
  }
  std::vector<std::string_view> known;
  for (const auto& row : dtype_table) known.push_back(row.name);
  fail("{}: unknown dtype \"{}\"; known are {}", where, text, fmt::join(known, ", "));
}

/// The beginning of a value, for an error.
std::string excerpt(const Json& value) {
  std::string text = value.dump();
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

/// Parses JSON, but refuses what a plain parser lets pass: a key that comes twice, and nesting without end.
Json parse_strict(std::string_view text, const std::string& source) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start) {
      if (depth >= max_depth) fail("{}: its header nests deeper than {} levels", source, max_depth);
      keys.resize(depth + 1);
      keys.emplace_back();
    } else if (event == Json::parse_event_t::key) {
      const auto key = value.get<std::string>();
      if (!keys.at(depth).insert(key).second) fail("{}: its header has the key \"{}\" twice", source, key);
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::exception& error) {
    fail("{}: its header of {} bytes is not JSON: {}", source, text.size(), error.what());
  }
}

uint64_t unsigned_at(const Json& list, size_t index, const std::string& where, const char* what) {
  const Json& number = list[index];
  if (!number.is_number_unsigned() || number.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    fail("{}: {}[{}] is {}, not a whole number from 0 to 2^63 - 1", where, what, index, excerpt(number));
  }
  return number.get<uint64_t>();
}

const Json& member(const Json& object, const char* key, bool list, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) fail("{}: \"{}\" is missing", where, key);
  if (list ? !found->is_array() : !found->is_string()) {
    fail("{}: \"{}\" is {}, not a {}", where, key, excerpt(*found), list ? "list" : "string");
  }
  return *found;
}

TensorEntry parse_entry(const std::string& name, const Json& object, uint64_t data_bytes, const std::string& source) {
  const std::string where = fmt::format("{}: tensor {}", source, name);
  if (!object.is_object()) fail("{}: its entry is not an object", where);
  for (const auto& [key, value] : object.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") fail("{}: unknown key \"{}\"", where, key);
  }
  TensorEntry entry;
  entry.spec.name = name;
  entry.spec.dtype = parse_dtype(member(object, "dtype", false, where).get<std::string>(), where);

  const Json& shape = member(object, "shape", true, where);
  if (shape.size() > max_dimensions) fail("{}: {} dimensions, at most {}", where, shape.size(), max_dimensions);
  const auto item = static_cast<int64_t>(c10::elementSize(entry.spec.dtype));
  int64_t extent = item;  // like the size in bytes, but counting empty dimensions as one: strides must not overflow
  for (size_t i = 0; i < shape.size(); ++i) {
    const auto size = static_cast<int64_t>(unsigned_at(shape, i, where, "shape"));
    if (__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent)) {
      fail("{}: shape {} has more than 2^63 - 1 bytes", where, shape.dump());
    }
    entry.spec.shape.push_back(size);
  }

  const Json& offsets = member(object, "data_offsets", true, where);
  if (offsets.size() != 2) fail("{}: data_offsets has {} numbers, not 2", where, offsets.size());
  entry.begin = unsigned_at(offsets, 0, where, "data_offsets");
  entry.end = unsigned_at(offsets, 1, where, "data_offsets");
  if (entry.begin > entry.end) fail("{}: begins at byte {} but ends at {}", where, entry.begin, entry.end);
  if (entry.end > data_bytes) {
    fail("{}: ends at byte {}, but the file holds {} bytes of tensors (is it truncated?)", where, entry.end,
         data_bytes);
  }
  if (entry.end - entry.begin != entry.spec.num_bytes()) {
    fail("{}: {} bytes at [{}, {}], but {} of shape {} takes {}", where, entry.end - entry.begin, entry.begin,
         entry.end, safetensors_dtype(entry.spec.dtype), shape.dump(), entry.spec.num_bytes());
  }
  return entry;
}

void parse_metadata(const Json& object, std::map<std::string, std::string>& metadata, const std::string& source) {
  if (!object.is_object()) fail("{}: __metadata__ is not an object", source);
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) fail("{}: __metadata__ \"{}\" is {}, not a string", source, key, excerpt(value));
    metadata[key] = value.get<std::string>();
  }
}

/// Tensors fill the bytes exactly: each begins where the one before ends.
void check_places(std::vector<TensorEntry>& entries, uint64_t data_bytes, const std::string& source) {
  std::stable_sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t position = 0;
  std::string before = "the header";
  for (const auto& entry : entries) {
    if (entry.begin != position) {
      fail("{}: tensor {} begins at byte {}, but {} ends at {}: {}", source, entry.spec.name, entry.begin, before,
           position, entry.begin < position ? "they overlap" : "a hole");
    }
    position = entry.end;
    before = entry.spec.name;
  }
  if (position != data_bytes) {
    fail("{}: {} ends at byte {}, but the file holds {} bytes of tensors", source, before, position, data_bytes);
  }
}

}  // namespace

uint64_t TensorSpec::num_bytes() const {
  uint64_t bytes = c10::elementSize(dtype);
  for (const int64_t size : shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

std::string_view safetensors_dtype(at::ScalarType dtype) {
  for (const auto& row : dtype_table) {
    if (row.type == dtype) return row.name;
  }
  fail("safetensors: no name for the dtype {}", c10::toString(dtype));
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& source) {
  uint64_t length = 0;
  if (file.size() < sizeof(length)) {
    fail("{}: {} bytes, too few for a safetensors file, which begins with 8 bytes", source, file.size());
  }
  std::memcpy(&length, file.data(), sizeof(length));
  if (length < 2) fail("{}: its header has {} bytes, at least 2 are needed", source, length);
  if (length > max_header_bytes) {
    fail("{}: its header has {} bytes, more than the limit of {} (is it a safetensors file?)", source, length,
         max_header_bytes);
  }
  if (length > file.size() - sizeof(length)) {
    fail("{}: its header has {} bytes, but only {} follow (is it truncated?)", source, length,
         file.size() - sizeof(length));
  }
  SafetensorsHeader header;
  header.data_begin = sizeof(length) + length;
  const uint64_t data_bytes = file.size() - header.data_begin;
  const Json json = parse_strict(file.substr(sizeof(length), length), source);
  if (!json.is_object()) fail("{}: its header is not a JSON object", source);
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      parse_metadata(value, header.metadata, source);
    } else {
      header.entries.push_back(parse_entry(name, value, data_bytes, source));
    }
  }
  check_places(header.entries, data_bytes, source);
  return header;
}

SafetensorsHeader layout_safetensors(std::vector<TensorSpec> specs, std::map<std::string, std::string> metadata) {
  SafetensorsHeader header;
  header.metadata = std::move(metadata);
  uint64_t position = 0;
  std::set<std::string> names;
  for (auto& spec : specs) {
    if (spec.name == "__metadata__" || !names.insert(spec.name).second) {
      fail("safetensors: the name {} is taken, no second tensor can have it", spec.name);
    }
    if (position % c10::elementSize(spec.dtype) != 0) {
      fail("safetensors: tensor {} would be misaligned at byte {}: larger dtypes must come first", spec.name, position);
    }
    const uint64_t end = position + spec.num_bytes();
    header.entries.push_back({std::move(spec), position, end});
    position = end;
  }
  return header;
}

std::string format_safetensors_header(const SafetensorsHeader& header) {
  std::vector<std::string> items;  // written by hand: a JSON object would forget the order of the bytes
  if (!header.metadata.empty()) items.push_back(fmt::format("\"__metadata__\":{}", Json(header.metadata).dump()));
  for (const auto& entry : header.entries) {
    items.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                Json(entry.spec.name).dump(), safetensors_dtype(entry.spec.dtype),
                                fmt::join(entry.spec.shape, ","), entry.begin, entry.end));
  }
  std::string text = fmt::format("{{{}}}", fmt::join(items, ","));
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

}  // namespace farskip
