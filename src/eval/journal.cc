#include "eval/journal.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// The place of the first difference, as "tasks.0.digest"; empty: there is none.
std::string difference(const json& a, const json& b) {
  if (a == b) return "";
  if (a.type() != b.type() || !a.is_structured() || (a.is_array() && a.size() != b.size())) return ".";
  const auto inside = [](const std::string& key, const std::string& below) {
    return below == "." ? key : key + "." + below;
  };
  if (a.is_array()) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (const auto found = difference(a[i], b[i]); !found.empty()) return inside(std::to_string(i), found);
    }
  }
  for (const auto& [key, value] : a.items()) {
    if (!b.contains(key)) return key;
    if (const auto found = difference(value, b.at(key)); !found.empty()) return inside(key, found);
  }
  for (const auto& [key, value] : b.items()) {
    if (!a.contains(key)) return key;
  }
  return ".";
}

/// What stands at such a place, shortened.
std::string at_place(const json& value, const std::string& place) {
  const json* found = &value;
  for (size_t begin = 0; place != "." && begin <= place.size();) {
    const size_t end = std::min(place.find('.', begin), place.size());
    const std::string key = place.substr(begin, end - begin);
    begin = end + 1;
    if (found->is_array()) {
      found = &found->at(std::stoul(key));
    } else if (found->contains(key)) {
      found = &found->at(key);
    } else {
      return "nothing";
    }
  }
  const std::string text = found->dump();
  return text.size() > 80 ? text.substr(0, 80) + "..." : text;
}

}  // namespace

void check_same_evaluation(const std::string& file, const json& there, const json& head) {
  const std::string place = difference(there, head);
  if (place.empty()) return;
  fail("{} is of another evaluation: its {} is {}, now it is {}; give another -o, or --overwrite to begin anew", file,
       place == "." ? "content" : place, at_place(there, place), at_place(head, place));
}

std::vector<json> read_journal(const std::string& output, const json& head) {
  const std::string path = output + journal_suffix;
  std::vector<json> lines;
  if (!fs::exists(path)) return lines;
  const std::string all = read_file(path);
  bool first = true;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = all.find('\n', begin);
    if (end == std::string::npos) break;  // the process died while it wrote this line
    json line = json::parse(std::string_view(all).substr(begin, end - begin), nullptr, false);
    begin = end + 1;
    if (line.is_discarded()) fail("{}: damaged; remove it (or give --overwrite) to begin anew", path);
    if (first) check_same_evaluation(path, line, head);
    if (!first) lines.push_back(std::move(line));
    first = false;
  }
  return lines;
}

Journal::Journal(const std::string& output, const json& head, const std::vector<json>& lines) : output_(output) {
  const std::string path = output + journal_suffix;
  std::string text = head.dump() + "\n";
  for (const json& line : lines) text += line.dump() + "\n";
  write_file(path, text);
  file_ = std::fopen(path.c_str(), "ab");
  if (!file_) fail("{}: cannot be written: {}", path, std::strerror(errno));
}

Journal::~Journal() {
  if (file_) std::fclose(file_);
}

void Journal::append(const json& line) {
  const std::string text = line.dump() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fflush(file_) != 0) {
    fail("{}{}: cannot be written: {}", output_, journal_suffix, std::strerror(errno));
  }
}

void Journal::finish(const std::string& results) {
  write_file(output_, results);
  std::error_code ignored;
  fs::remove(output_ + journal_suffix, ignored);
}

}  // namespace farskip
