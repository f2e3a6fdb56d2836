#pragma once
// What benchmarks against another program share: arguments KEY=VALUE, and ratios with their interval.

#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/stats.h"

namespace farskip {

inline std::vector<std::string> words_of(const std::string& text, char separator) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, separator);) words.push_back(word);
  return words;
}

/// KEY=VALUE words over defaults. Throws Error for a key that has none; `source` is the file whose head tells them.
class Arguments {
 public:
  Arguments(int argc, char** argv, std::map<std::string, std::string> defaults, const std::string& source)
      : text_(std::move(defaults)) {
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i], key = word.substr(0, word.find('='));
      if (text_.count(key) == 0 || key.size() == word.size()) fail("{}: see the head of {}", word, source);
      text_[key] = word.substr(key.size() + 1);
    }
  }
  const std::string& operator[](const std::string& key) const { return text_.at(key); }
  int number(const std::string& key) const { return std::atoi(text_.at(key).c_str()); }

 private:
  std::map<std::string, std::string> text_;
};

/// Median of theirs over median of ours, "1.82 [1.63, 2.05]" with the 95 % bootstrap interval over rounds.
inline std::string ratio_text(const std::vector<double>& theirs, const std::vector<double>& ours, int digits = 2) {
  const Estimate ratio = bootstrap_interval(static_cast<int64_t>(ours.size()), [&](const std::vector<int64_t>& chosen) {
    std::vector<double> a, b;
    for (const int64_t i : chosen) {
      a.push_back(ours[i]);
      b.push_back(theirs[i]);
    }
    return median(b) / median(a);
  });
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", ratio.value, digits, ratio.low, digits, ratio.high, digits);
}

}  // namespace farskip
