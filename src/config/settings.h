#pragma once
// Settings of a run: each is declared once, with name, default, help and range, beside the variable that holds it;
// reading recipes, key=value overrides, printing, help texts and docs/settings.md all follow from the declaration.

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace farskip {

/// Bounds of a number, inclusive unless `above` (then the value must be greater than `min`).
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above = false;

  static Range at_least(double min) { return {.min = min}; }
  static Range positive() { return {.min = 0, .above = true}; }
  static Range between(double min, double max) { return {.min = min, .max = max}; }
  bool contains(double value) const { return (above ? value > min : value >= min) && value <= max; }
  /// ">= 1", "> 0", "0 .. 1", "" without bounds.
  std::string to_string() const;
};

/// A table of settings bound to variables. Declaring a setting writes its default into the variable; the variables must
/// outlive the table. Recipes are YAML files whose top level maps names to single values. Errors name the setting and
/// where it was given (FILE:LINE or the command line).
class Settings {
 public:
  /// `subject` is what the settings belong to, for titles ("farskip train").
  explicit Settings(std::string subject) : subject_(std::move(subject)) {}

  /// Starts a group in help texts.
  void section(const std::string& title) { section_ = title; }

  void add(const std::string& name, bool& target, bool value, const std::string& help);
  void add(const std::string& name, int64_t& target, int64_t value, const std::string& help, Range range = {});
  void add(const std::string& name, double& target, double value, const std::string& help, Range range = {});
  void add(const std::string& name, std::string& target, const std::string& value, const std::string& help);
  /// Spelled `automatic` while it has no value (which the program then takes from elsewhere).
  void add_optional(const std::string& name, std::optional<int64_t>& target, const std::string& automatic,
                    const std::string& help, Range range = {});
  void add_optional(const std::string& name, std::optional<double>& target, const std::string& automatic,
                    const std::string& help, Range range = {});
  /// One of a closed list of words.
  template <typename Enum>
  void add_choice(const std::string& name, Enum& target, Enum value,
                  const std::vector<std::pair<Enum, std::string>>& words, const std::string& help);

  /// Makes `text` the default of a setting that is declared already.
  void set_default(const std::string& name, const std::string& text);

  /// Reads a recipe; settings that it leaves out keep their values.
  void read_file(const std::string& path);
  /// The same from text; `source` stands for the file's name in errors.
  void read_yaml(const std::string& yaml, const std::string& source);
  /// "name=value" from the command line; overrides what a recipe said.
  void override_with(const std::string& assignment);

  /// Whether a recipe or an override has given the setting.
  bool given(const std::string& name) const { return !find(name).place.empty(); }
  /// "FILE:LINE: lr = 0.1", "command line: lr = 0.1" or "lr = 0.1 (default)", for errors about several settings.
  std::string describe(const std::string& name) const;

  /// All values as a recipe; reading it gives them back.
  std::string to_yaml() const;
  /// For a terminal: name, default, help and range of each setting.
  std::string help() const;
  /// The same as a page of Markdown.
  std::string markdown() const;

 private:
  struct Setting {
    std::string section, name, type, range, help, initial;
    std::function<void(const std::string& text)> parse;  ///< throws Expectation
    std::function<std::string()> print;
    std::string place;  ///< where it was given; empty: nowhere
  };
  void add_setting(const std::string& name, const std::string& type, const std::string& range, const std::string& help,
                   std::function<void(const std::string&)> parse, std::function<std::string()> print);
  void add_words(const std::string& name, const std::vector<std::string>& words, const std::string& help,
                 std::function<void(size_t)> set, std::function<size_t()> get);
  const Setting& find(const std::string& name) const;
  Setting& find_or_fail(const std::string& name, const std::string& place);
  void assign(const std::string& name, const std::string& text, const std::string& place);

  std::string subject_;
  std::string section_;
  std::vector<Setting> settings_;
};

template <typename Enum>
void Settings::add_choice(const std::string& name, Enum& target, Enum value,
                          const std::vector<std::pair<Enum, std::string>>& words, const std::string& help) {
  std::vector<std::string> spellings;
  std::vector<Enum> values;
  for (const auto& [entry, word] : words) {
    values.push_back(entry);
    spellings.push_back(word);
  }
  target = value;
  add_words(
      name, spellings, help, [&target, values](size_t index) { target = values.at(index); },
      [&target, values] {
        size_t index = 0;
        while (values.at(index) != target) ++index;
        return index;
      });
}

}  // namespace farskip
