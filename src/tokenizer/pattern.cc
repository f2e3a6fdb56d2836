#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pattern.h"

#include <pcre2.h>

#include <array>
#include <set>
#include <vector>

#include "base/error.h"

namespace farskip {
namespace {

constexpr std::string_view kWhiteSpace =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::array<std::string_view, 30> kCategories = {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl",
                                                          "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc",
                                                          "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"};

class Speller {
 public:
  explicit Speller(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '[') {
        result_ += char_class();
      } else if (pattern_[at_] == '\\') {
        result_ += escape(false);
      } else {
        result_ += pattern_[at_++];
      }
    }
    return result_;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const { fail("the regular expression {}: {}", pattern_, what); }

  char next() const {
    if (at_ >= pattern_.size()) refuse("it ends within a class or an escape");
    return pattern_[at_];
  }

  /// The escape at at_, with \p{...} whole.
  std::string escape(bool in_class) {
    ++at_;
    const char c = next();
    ++at_;
    if (c == 's' || c == 'w') {
      const std::string_view members = c == 's' ? kWhiteSpace : kWord;
      return in_class ? std::string(members) : fmt::format("[{}]", members);
    }
    if ((c == 'S' || c == 'W') && !in_class) return fmt::format("[^{}]", c == 'S' ? kWhiteSpace : kWord);
    if (std::string_view("SWhHRXbB").find(c) != std::string_view::npos) {
      refuse(fmt::format("\\{} {}is not supported", c, in_class ? "in a class " : ""));
    }
    std::string text = {'\\', c};
    if ((c == 'p' || c == 'P') && at_ < pattern_.size() && pattern_[at_] == '{') {
      const size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) refuse("\\p{ without }");
      text += pattern_.substr(at_, end + 1 - at_);
      at_ = end + 1;
    }
    return text;
  }

  /// The class at at_.
  std::string char_class() {
    ++at_;
    std::string body;
    if (next() == '^') body += pattern_[at_++];
    if (next() == ']') body += "\\]", ++at_;
    const size_t members = body.size();
    while (next() != ']') {
      if (pattern_.substr(at_, 2) == "&&") return intersection(body.substr(members), members > 0);
      if (pattern_[at_] == '[') {
        refuse("a class within a class is not supported; a bracket that is meant is written \\[");
      } else if (pattern_[at_] == '\\') {
        body += escape(true);
      } else {
        body += pattern_[at_++];
      }
    }
    ++at_;
    return "[" + body + "]";
  }

  /// `members` && [^...]], at_ being at "&&": all characters but the other categories and the excluded ones.
  std::string intersection(const std::string& members, bool negated) {
    static constexpr std::string_view kKnown =
        "of the intersections (&&) only that of general categories with one negated class, "
        "as in [\\p{Lu}\\p{Lo}&&[^\\p{Han}]], is supported";
    std::set<std::string_view> left(kCategories.begin(), kCategories.end());
    if (negated) refuse(kKnown);
    for (size_t i = 0; i < members.size();) {
      const size_t end = members.find('}', i);
      if (members.compare(i, 3, "\\p{") != 0 || end == std::string::npos) refuse(kKnown);
      const std::string name = members.substr(i + 3, end - i - 3);
      if (std::erase_if(left, [&](std::string_view category) { return category.starts_with(name); }) == 0)
        refuse(kKnown);
      i = end + 1;
    }
    at_ += 2;
    if (pattern_.substr(at_, 2) != "[^") refuse(kKnown);
    const std::string excluded = char_class();
    if (next() != ']') refuse(kKnown);
    ++at_;
    std::string result = "[^";
    for (const std::string_view category : left) result += fmt::format("\\p{{{}}}", category);
    return result + excluded.substr(2);
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::string result_;
};

}  // namespace

std::string pcre2_spelling(std::string_view pattern) { return Speller(pattern).run(); }

MatchScratch::MatchScratch()
    : data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      stack_(pcre2_jit_stack_create(size_t{32} << 10, size_t{64} << 20, nullptr)) {
  FARSKIP_CHECK(data_ != nullptr && context_ != nullptr && stack_ != nullptr);
  pcre2_jit_stack_assign(context_, nullptr, stack_);
  pcre2_set_match_limit(context_, UINT32_MAX);
}

MatchScratch::~MatchScratch() {
  pcre2_match_data_free(data_);
  pcre2_match_context_free(context_);
  pcre2_jit_stack_free(stack_);
}

Pattern::Pattern(std::string_view pattern) : text_(pattern) {
  const std::string spelling = pcre2_spelling(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // MULTILINE: $ stands before any line's end in Oniguruma.
  code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelling.data()), spelling.size(),
                        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code_ == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    fail("the regular expression {} cannot be used: {} (at {} of {})", pattern,
         reinterpret_cast<const char*>(message.data()), offset, spelling);
  }
  pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter matches
}

Pattern::~Pattern() { pcre2_code_free(code_); }

bool Pattern::find(std::string_view text, size_t from, MatchScratch& scratch, size_t& begin, size_t& end) const {
  const int status = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK, scratch.data_, scratch.context_);
  if (status == PCRE2_ERROR_NOMATCH) return false;
  if (status < 0)
    fail("the regular expression {} gave up on a text of {} bytes (PCRE2 error {})", text_, text.size(), status);
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data_);
  begin = offsets[0], end = offsets[1];
  return true;
}

}  // namespace farskip
