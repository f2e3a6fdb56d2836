#pragma once
// Regular expressions over UTF-8 as tokenizers write them (Oniguruma's and Rust's syntax), run by PCRE2.

#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace farskip {

/// What one thread needs to match; any Pattern can use it.
class MatchScratch {
 public:
  MatchScratch();
  ~MatchScratch();
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

 private:
  friend class Pattern;
  pcre2_real_match_data_8* data_;
  pcre2_real_match_context_8* context_;
  pcre2_real_jit_stack_8* stack_;
};

/// PCRE2's spelling of a tokenizer's expression. The languages agree but for these: \s and \S are exactly Unicode's
/// White_Space, \w and \W Alphabetic, marks, decimal digits and connectors; an intersection of a class of general
/// categories with the complement of another, as in
/// [\p{Lu}\p{Lo}&&[^\p{Han}]], becomes the complement of a union; \h, \H, \R, \X, \b and \B, which mean different
/// things, and classes within classes are refused. Throws Error.
std::string pcre2_spelling(std::string_view pattern);

/// Thread-safe. Where a text is not valid UTF-8 the result is undefined.
class Pattern {
 public:
  /// Throws Error with the place of the mistake for what is no expression.
  explicit Pattern(std::string_view pattern);
  ~Pattern();
  Pattern(Pattern&& other) noexcept : code_(other.code_), text_(std::move(other.text_)) { other.code_ = nullptr; }
  Pattern& operator=(const Pattern&) = delete;

  /// The leftmost match in text[from..], false where there is none. What stands before `from` is seen by look-behinds.
  bool find(std::string_view text, size_t from, MatchScratch& scratch, size_t& begin, size_t& end) const;

 private:
  pcre2_real_code_8* code_;
  std::string text_;
};

}  // namespace farskip
