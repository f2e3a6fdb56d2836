#pragma once
// Text as the tokens of a model, as tasks need it: what stands before a text, and how many bytes a token is.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace farskip {

class TaskText {
 public:
  /// nullptr: tokens are bytes. The tokenizer must outlive it.
  explicit TaskText(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  /// Without tokens that a format puts around texts.
  std::vector<int32_t> encode(std::string_view text) const;
  /// Valid UTF-8, special tokens left out.
  std::string decode(std::span<const int32_t> tokens) const;
  /// What a text begins with where nothing is before it: the beginning's token, or the one that ends documents (which
  /// stands before the next one in training data); -1: there is neither.
  int32_t begin_token() const;
  /// The format puts begin_token() before every text.
  bool always_begins() const;
  /// Bytes of text that a token stands for; 0 of special ones.
  int64_t num_bytes(int32_t token) const;
  /// SHA-256 of the vocabulary: two models share it where these are equal.
  std::string vocabulary_digest() const;

 private:
  const Tokenizer* tokenizer_;
};

}  // namespace farskip
