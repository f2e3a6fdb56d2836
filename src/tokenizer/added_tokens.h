#pragma once
// Tokens that are found in a text before anything else is done with it: special ones and others added to a vocabulary.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/normalizer.h"
#include "tokenizer/pattern.h"

namespace farskip {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;      ///< left out of a text where decode() is told so
  bool single_word = false;  ///< only where no letter, digit or _ stands beside it
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< takes the white space behind it
  bool normalized = false;   ///< looked for in the normalised text
};

class AddedTokens {
 public:
  AddedTokens() : AddedTokens({}, nullptr) {}
  /// `normalizer` may be null.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer);

  /// A part of a text: between tokens (id -1), or a token.
  using Use = std::function<void(std::string_view part, int32_t id)>;
  /// Cuts `text` at the tokens that are (not) looked for in normalised text: the leftmost, of these the longest.
  void cut(std::string_view text, bool normalized, MatchScratch& scratch, const Use& use) const;
  bool any(bool normalized) const { return nodes_[normalized].size() > 1; }

  /// Null where it is none.
  const AddedToken* find(int32_t id) const;
  int32_t id_of(std::string_view content) const;
  int32_t max_id() const { return max_id_; }

 private:
  struct Node {
    std::map<unsigned char, int32_t> next;
    int32_t token = -1;  ///< index into tokens_ where one ends here
  };
  void add(std::string_view content, bool normalized, int32_t token);
  /// The longest token at the beginning of `text`, and its length.
  int32_t match(std::string_view text, bool normalized, size_t& length) const;
  bool stands_alone(std::string_view text, size_t begin, size_t end, MatchScratch& scratch) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_[2];  ///< by `normalized`; the root is the first
  std::unordered_map<int32_t, int32_t> by_id_;
  std::unordered_map<std::string, int32_t> by_content_;
  int32_t max_id_ = -1;
  Pattern word_;
};

}  // namespace farskip
