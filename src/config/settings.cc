#include "config/settings.h"

#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "config/nearest_name.h"

namespace farskip {
namespace {

constexpr const char* command_line = "command line";

/// What was expected of a value that could not be taken.
struct Expectation {
  std::string text;
};

template <typename Number>
Number parse_number(const std::string& text, const char* kind, const Range& range) {
  Number value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(static_cast<double>(value))) throw Expectation{kind};
  if (!range.contains(static_cast<double>(value))) throw Expectation{fmt::format("{} {}", kind, range.to_string())};
  return value;
}

constexpr const char* integer_kind = "an integer";
constexpr const char* number_kind = "a number";

template <typename Number>
std::function<void(const std::string&)> optional_parser(std::optional<Number>& target, std::string automatic,
                                                        const char* kind, Range range) {
  return [&target, automatic, kind, range](const std::string& text) {
    if (text == automatic) {
      target.reset();
      return;
    }
    try {
      target = parse_number<Number>(text, kind, range);
    } catch (const Expectation& expected) {
      throw Expectation{fmt::format("{}, or {}", expected.text, automatic)};
    }
  };
}

template <typename Number>
std::function<std::string()> optional_printer(const std::optional<Number>& target, std::string automatic) {
  return [&target, automatic] { return target ? fmt::format("{}", *target) : automatic; };
}

/// Quotes a value where plain YAML would read something else.
std::string quoted(const std::string& text) {
  YAML::Emitter emitter;
  emitter << text;
  return text.empty() ? "\"\"" : emitter.c_str();
}

std::string wrapped(const std::string& text, size_t indent, size_t width) {
  std::istringstream words(text);
  std::string result, line, word;
  while (words >> word) {
    if (!line.empty() && indent + line.size() + 1 + word.size() > width) {
      result += std::string(indent, ' ') + line + "\n";
      line.clear();
    }
    if (!line.empty()) line += ' ';
    line += word;
  }
  return result + std::string(indent, ' ') + line + "\n";
}

}  // namespace

std::string Range::to_string() const {
  const bool lower = std::isfinite(min), upper = std::isfinite(max);
  if (lower && upper) return fmt::format("{}{} .. {}", above ? "above " : "", min, max);
  if (lower) return fmt::format("{} {}", above ? ">" : ">=", min);
  return upper ? fmt::format("<= {}", max) : "";
}

void Settings::add_setting(const std::string& name, const std::string& type, const std::string& range,
                           const std::string& help, std::function<void(const std::string&)> parse,
                           std::function<std::string()> print) {
  for (const Setting& other : settings_) FARSKIP_CHECK(other.name != name, name);
  std::string initial = print();
  settings_.push_back({section_, name, type, range, help, std::move(initial), std::move(parse), std::move(print), ""});
}

void Settings::add(const std::string& name, bool& target, bool value, const std::string& help) {
  target = value;
  const auto parse = [&target](const std::string& text) {
    if (text != "true" && text != "false") throw Expectation{"true or false"};
    target = text == "true";
  };
  add_setting(name, "true or false", "", help, parse, [&target] { return std::string(target ? "true" : "false"); });
}

void Settings::add(const std::string& name, int64_t& target, int64_t value, const std::string& help, Range range) {
  target = value;
  add_setting(
      name, "integer", range.to_string(), help,
      [&target, range](const std::string& text) { target = parse_number<int64_t>(text, integer_kind, range); },
      [&target] { return fmt::format("{}", target); });
}

void Settings::add(const std::string& name, double& target, double value, const std::string& help, Range range) {
  target = value;
  add_setting(
      name, "number", range.to_string(), help,
      [&target, range](const std::string& text) { target = parse_number<double>(text, number_kind, range); },
      [&target] { return fmt::format("{}", target); });
}

void Settings::add(const std::string& name, std::string& target, const std::string& value, const std::string& help) {
  target = value;
  add_setting(
      name, "text", "", help, [&target](const std::string& text) { target = text; }, [&target] { return target; });
}

void Settings::add_optional(const std::string& name, std::optional<int64_t>& target, const std::string& automatic,
                            const std::string& help, Range range) {
  target.reset();
  add_setting(name, "integer", range.to_string(), help, optional_parser(target, automatic, integer_kind, range),
              optional_printer(target, automatic));
}

void Settings::add_optional(const std::string& name, std::optional<double>& target, const std::string& automatic,
                            const std::string& help, Range range) {
  target.reset();
  add_setting(name, "number", range.to_string(), help, optional_parser(target, automatic, number_kind, range),
              optional_printer(target, automatic));
}

void Settings::add_words(const std::string& name, const std::vector<std::string>& words, const std::string& help,
                         std::function<void(size_t)> set, std::function<size_t()> get) {
  const auto parse = [words, set](const std::string& text) {
    const auto found = std::find(words.begin(), words.end(), text);
    if (found == words.end()) {
      const std::string nearest = nearest_name(text, words);
      throw Expectation{fmt::format("one of {}{}", fmt::join(words, ", "),
                                    nearest.empty() ? "" : fmt::format(" (did you mean {}?)", nearest))};
    }
    set(found - words.begin());
  };
  add_setting(name, "word", fmt::format("{}", fmt::join(words, ", ")), help, parse,
              [words, get] { return words.at(get()); });
}

const Settings::Setting& Settings::find(const std::string& name) const {
  for (const Setting& setting : settings_) {
    if (setting.name == name) return setting;
  }
  broken_invariant("setting is declared", __FILE__, __LINE__, name);
}

Settings::Setting& Settings::find_or_fail(const std::string& name, const std::string& place) {
  std::vector<std::string> names;
  for (Setting& setting : settings_) {
    if (setting.name == name) return setting;
    names.push_back(setting.name);
  }
  const std::string nearest = nearest_name(name, names);
  fail("{}: unknown setting \"{}\"; {}", place, name,
       nearest.empty() ? fmt::format("{} --help-settings lists them all", subject_)
                       : fmt::format("did you mean \"{}\"?", nearest));
}

void Settings::assign(const std::string& name, const std::string& text, const std::string& place) {
  Setting& setting = find_or_fail(name, place);
  try {
    setting.parse(text);
  } catch (const Expectation& expected) {
    fail("{}: {} = \"{}\": {} was expected", place, name, text, expected.text);
  }
  setting.place = place;
}

void Settings::set_default(const std::string& name, const std::string& text) {
  Setting& setting = find_or_fail(name, subject_);
  setting.parse(text);
  setting.initial = setting.print();
}

void Settings::read_file(const std::string& path) { read_yaml(farskip::read_file(path), path); }

void Settings::read_yaml(const std::string& yaml, const std::string& source) {
  YAML::Node root;
  try {
    root = YAML::Load(yaml);
  } catch (const YAML::Exception& error) {
    fail("{}:{}: not YAML: {}", source, error.mark.line + 1, error.msg);
  }
  if (root.IsNull()) return;
  if (!root.IsMap()) fail("{}: a recipe is a list of lines \"name: value\"", source);
  std::vector<std::pair<std::string, int>> seen;
  for (const auto& entry : root) {
    const YAML::Node &key = entry.first, &value = entry.second;
    const int line = key.Mark().line + 1;
    const std::string place = fmt::format("{}:{}", source, line);
    if (!key.IsScalar()) fail("{}: a name was expected before the colon", place);
    const std::string name = key.Scalar();
    const Setting& setting = find_or_fail(name, place);
    for (const auto& [other, other_line] : seen) {
      if (other == name) fail("{}: {} is given twice, first in line {}; remove one", place, name, other_line);
    }
    seen.emplace_back(name, line);
    if (value.IsNull() && setting.type != "text")
      fail("{}: {} has no value; {} was expected", place, name, setting.type);
    if (!value.IsNull() && !value.IsScalar()) {
      fail("{}: {} takes a single value ({}), not a {}", place, name, setting.type, value.IsMap() ? "mapping" : "list");
    }
    assign(name, value.IsNull() ? "" : value.Scalar(), place);
  }
}

void Settings::override_with(const std::string& assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail("{}: \"{}\" is not an override; write name=value", command_line, assignment);
  }
  assign(assignment.substr(0, equals), assignment.substr(equals + 1), command_line);
}

std::string Settings::describe(const std::string& name) const {
  const Setting& setting = find(name);
  const std::string text = fmt::format("{} = {}", name, setting.print());
  return setting.place.empty() ? text + " (default)" : fmt::format("{}: {}", setting.place, text);
}

std::string Settings::to_yaml() const {
  std::string yaml;
  for (const Setting& setting : settings_) yaml += fmt::format("{}: {}\n", setting.name, quoted(setting.print()));
  return yaml;
}

std::string Settings::help() const {
  std::string text =
      fmt::format("Settings of {} (in a recipe \"name: value\", on the command line name=value)\n", subject_);
  std::string section;
  for (const Setting& setting : settings_) {
    if (setting.section != section) text += fmt::format("\n{}\n", section = setting.section);
    text += fmt::format("  {} ({}{}{}; default {})\n", setting.name, setting.type, setting.range.empty() ? "" : ": ",
                        setting.range, setting.initial.empty() ? "none" : setting.initial);
    text += wrapped(setting.help, 6, 120);
  }
  return text;
}

std::string Settings::markdown() const {
  const auto cell = [](const std::string& plain) {  // a bar would end the cell
    std::string escaped;
    for (const char c : plain) {
      if (c == '|') escaped += '\\';
      escaped += c;
    }
    return escaped;
  };
  std::string text = fmt::format(
      "# Settings of `{}`\n\nIn a recipe `name: value`, on the command line `name=value`; the command line wins. "
      "This page is generated from the declarations.\n",
      subject_);
  std::string section;
  for (const Setting& setting : settings_) {
    if (setting.section != section) {
      section = setting.section;
      text += fmt::format("\n## {}\n\n| Name | Type | Default | Meaning |\n|---|---|---|---|\n", section);
    }
    text += fmt::format("| `{}` | {}{}{} | {} | {} |\n", setting.name, setting.type, setting.range.empty() ? "" : ": ",
                        cell(setting.range), setting.initial.empty() ? "none" : fmt::format("`{}`", setting.initial),
                        cell(setting.help));
  }
  return text;
}

}  // namespace farskip
