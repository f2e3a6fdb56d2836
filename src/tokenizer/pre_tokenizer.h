#pragma once
// Pre-tokenizers of a tokenizer.json: how a normalised text is cut into the pieces within which the model merges.

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "tokenizer/pattern.h"

namespace farskip {

/// Gets pieces, never empty, in order. A piece is valid during the call.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual void add(std::string_view piece) = 0;
};

/// One step; steps are chained, each cuts the pieces of the one before.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// `is_first`: the piece begins the whole text. REQUIRES: valid UTF-8.
  virtual void cut(std::string_view text, bool is_first, MatchScratch& scratch, PieceSink& sink) const = 0;
};

struct PreTokenization {
  std::unique_ptr<PreTokenizer> cut;  ///< null: a text is one piece
  bool byte_level = false;            ///< the model's symbols are bytes in ByteAlphabet's spelling
};

/// Split (String and Regex, all behaviors, invert), ByteLevel, Digits, Punctuation, Whitespace, WhitespaceSplit,
/// Metaspace and Sequence. ByteLevel must come last. `where` begins errors. Throws Error for others.
PreTokenization parse_pre_tokenizer(const nlohmann::json& json, const std::string& where);

/// GPT-2's expression, which is that of ByteLevel.
extern const char* const kByteLevelPattern;

/// ByteLevel of GPT-2 for vocabularies without a tokenizer.json; an expression of its own where `pattern` is not
/// GPT-2's.
PreTokenization byte_level_pre_tokenization(std::string_view pattern);

}  // namespace farskip
