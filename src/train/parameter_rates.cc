#include "train/parameter_rates.h"

#include <charconv>
#include <cmath>
#include <sstream>

#include "base/error.h"

namespace farskip {
namespace {

struct Rule {
  std::string setting, pattern;
  double factor;
};

std::vector<Rule> rules_of(const TrainConfig& config) {
  std::vector<Rule> rules;
  std::istringstream multipliers(config.lr_multipliers), frozen(config.freeze);
  for (std::string word; multipliers >> word;) {
    const size_t equals = word.rfind('=');
    const std::string number = equals == std::string::npos ? "" : word.substr(equals + 1);
    double factor = -1;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), factor);
    if (error != std::errc() || end != number.data() + number.size() || !std::isfinite(factor) || factor < 0)
      fail("lr_multipliers: '{}'; write PATTERN=FACTOR, a factor of 0 or more: *.self_attn.*=0.5", word);
    rules.push_back({"lr_multipliers", word.substr(0, equals), factor});
  }
  for (std::string word; frozen >> word;) rules.push_back({"freeze", word, 0});
  return rules;
}

}  // namespace

bool matches_pattern(const std::string& pattern, const std::string& name) {
  size_t p = 0, n = 0, star = std::string::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<double> parameter_rates(const ParameterTable& table, const TrainConfig& config) {
  std::vector<double> factors(static_cast<size_t>(table.size()), 1);
  for (const Rule& rule : rules_of(config)) {
    bool used = false;
    for (const ParameterInfo& info : table.parameters()) {
      const auto tensors = info.tensors();
      size_t matching = 0;
      for (const auto& [name, shape] : tensors) matching += matches_pattern(rule.pattern, name);
      if (matching == 0) continue;
      if (matching < tensors.size()) {
        fail("{}: '{}' is {} of the {} tensors that are one parameter here, from {} to {}; match all of them or none",
             rule.setting, rule.pattern, matching, tensors.size(), tensors.front().first, tensors.back().first);
      }
      factors[static_cast<size_t>(info.id)] = rule.factor;
      used = true;
    }
    if (!used) {
      fail("{}: no tensor matches '{}'; names are like {}, and * stands for anything", rule.setting, rule.pattern,
           table.parameters()[static_cast<size_t>(table.size() / 2)].tensors().front().first);
    }
  }
  return factors;
}

std::vector<bool> frozen_parameters(const ParameterTable& table, const TrainConfig& config) {
  std::vector<bool> frozen;
  for (const double factor : parameter_rates(table, config)) frozen.push_back(factor == 0);
  return frozen;
}

FrozenWeights frozen_weights(const ModelConfig& model, const TrainConfig& config) {
  const ParameterTable table(model);
  const auto factors = parameter_rates(table, config);
  FrozenWeights counts;
  for (const ParameterInfo& info : table.parameters()) {
    if (factors[static_cast<size_t>(info.id)] != 0) continue;
    counts[{info.layer, info.stage}] += static_cast<double>(info.numel());
  }
  return counts;
}

}  // namespace farskip
