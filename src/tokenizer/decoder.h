#pragma once
// Decoders of a tokenizer.json: how the spellings of tokens become a text.

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/byte_alphabet.h"

namespace farskip {

/// ByteLevel; or any of Replace (String), ByteFallback, Fuse and Strip as a Sequence; or Metaspace; or none, where
/// spaces stand between tokens.
class TokenDecoder {
 public:
  /// Throws Error for others. `where` begins errors.
  TokenDecoder(const nlohmann::json& json, const std::string& where);
  static TokenDecoder byte_level();

  /// Valid UTF-8.
  std::string decode(std::span<const std::string_view> tokens) const;
  /// What a token adds; empty `token`: nothing.
  std::string bytes(std::string_view token, bool is_first) const;

 private:
  enum class Kind { byte_level, chain, spaces };
  struct Step {
    enum class What { replace, byte_fallback, fuse, strip, metaspace } what;
    std::string from, to;  ///< replace; strip: `from` once or more
    int64_t start = 0, stop = 0;
    bool prepended = false;  ///< metaspace: the first one's is dropped
  };
  TokenDecoder() = default;
  void add(const nlohmann::json& json, const std::string& where);
  void apply(const Step& step, std::vector<std::string>& tokens) const;

  Kind kind_ = Kind::byte_level;
  std::vector<Step> steps_;
  ByteAlphabet alphabet_;
};

}  // namespace farskip
