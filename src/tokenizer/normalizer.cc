#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tokenizer/components.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

/// Unicode's normal forms.
class NormalForm : public Normalizer {
 public:
  NormalForm(int options, unsigned char first_changed) : options_(options), first_changed_(first_changed) {}
  void apply(std::string& text, MatchScratch&) const override {
    const auto may_change = [&](char c) { return static_cast<unsigned char>(c) >= first_changed_; };
    if (std::none_of(text.begin(), text.end(), may_change)) return;
    utf8proc_uint8_t* mapped = nullptr;
    const auto size =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                     &mapped, static_cast<utf8proc_option_t>(options_));
    if (size < 0) fail("a text of {} bytes cannot be normalised: {}", text.size(), utf8proc_errmsg(size));
    text.assign(reinterpret_cast<const char*>(mapped), static_cast<size_t>(size));
    std::free(mapped);
  }

 private:
  int options_;
  unsigned char first_changed_;  ///< a text of smaller bytes is in the normal form
};

class Lowercase : public Normalizer {
 public:
  void apply(std::string& text, MatchScratch&) const override {
    std::string result;
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Char c = first_utf8_char(rest);
      if (c.code == 0x130) {  // the one character whose lower case is two
        result += "i\u0307";
      } else {
        append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.code))), result);
      }
      rest.remove_prefix(static_cast<size_t>(c.num_bytes));
    }
    text = std::move(result);
  }
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text, MatchScratch&) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(const Component::PatternText& pattern, std::string content) : content_(std::move(content)) {
    if (pattern.is_regex) {
      regex_.emplace(pattern.text);
    } else {
      literal_ = pattern.text;
    }
  }
  void apply(std::string& text, MatchScratch& scratch) const override {
    std::string result;
    size_t copied = 0;
    for (size_t from = 0, begin, end; from <= text.size() && find(text, from, scratch, begin, end);) {
      result.append(text, copied, begin - copied);
      result += content_;
      copied = end;
      from = end > begin ? end : end + 1;
    }
    if (copied == 0 && result.empty()) return;
    text = result.append(text, copied);
  }

 private:
  bool find(const std::string& text, size_t from, MatchScratch& scratch, size_t& begin, size_t& end) const {
    if (regex_) return regex_->find(text, from, scratch, begin, end);
    begin = text.find(literal_, from);
    end = begin + literal_.size();
    return begin != std::string::npos;
  }

  std::optional<Pattern> regex_;
  std::string literal_, content_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) {
    if (left) patterns_.emplace_back(R"(\A\s+)");
    if (right) patterns_.emplace_back(R"(\s+\z)");
  }
  void apply(std::string& text, MatchScratch& scratch) const override {
    for (const Pattern& pattern : patterns_) {
      if (size_t begin, end; pattern.find(text, 0, scratch, begin, end)) text.erase(begin, end - begin);
    }
  }

 private:
  std::vector<Pattern> patterns_;
};

class SequenceNormalizer : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  void apply(std::string& text, MatchScratch& scratch) const override {
    for (const auto& step : steps_) step->apply(text, scratch);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

std::unique_ptr<Normalizer> parse(const Component& component) {
  const std::string& type = component.type();
  // Below U+0300 everything is composed and of these U+00A0 and up may have compatibility forms.
  constexpr unsigned char kComposed = 0xCC, kAscii = 0x80;
  if (type == "NFC") return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_COMPOSE, kComposed);
  if (type == "NFD") return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, kAscii);
  if (type == "NFKC") {
    return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, kAscii);
  }
  if (type == "NFKD") {
    return std::make_unique<NormalForm>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, kAscii);
  }
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Prepend") return std::make_unique<Prepend>(component.text("prepend"));
  if (type == "Replace") {
    const auto pattern = component.pattern();
    if (pattern.text.empty()) component.refuse("the pattern is empty");
    return std::make_unique<Replace>(pattern, component.text("content"));
  }
  if (type == "Strip")
    return std::make_unique<Strip>(component.flag("strip_left", true), component.flag("strip_right", true));
  if (type == "Sequence") {
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (const Component& step : component.list("normalizers")) steps.push_back(parse(step));
    return std::make_unique<SequenceNormalizer>(std::move(steps));
  }
  component.refuse_type("NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, Sequence");
}

}  // namespace

std::unique_ptr<Normalizer> parse_normalizer(const nlohmann::json& json, const std::string& where) {
  return json.is_null() ? nullptr : parse(Component(json, where + ": normalizer"));
}

}  // namespace farskip
