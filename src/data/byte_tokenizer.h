#pragma once
// Bytes as tokens: ids 0..255 are the bytes themselves, 256 ends a document. Any bytes are text; nothing is normalised.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace farskip {

struct ByteTokenizer {
  static constexpr int32_t kEndOfDocument = 256;
  /// Ids in use.
  static constexpr int64_t kNumIds = 257;
  /// vocab_size of a model: kNumIds padded to a multiple of 64. The ids between are never seen.
  static constexpr int64_t kVocabSize = 320;

  /// Appends the tokens of `text` to `tokens`.
  static void encode(std::string_view text, std::vector<int32_t>& tokens) {
    for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
  }
  static std::vector<int32_t> encode(std::string_view text) {
    std::vector<int32_t> tokens;
    tokens.reserve(text.size());
    encode(text, tokens);
    return tokens;
  }
  /// The bytes of `tokens`; ids that are no byte (end of document, padding) are left out.
  static std::string decode(std::span<const int32_t> tokens) {
    std::string text;
    text.reserve(tokens.size());
    for (const int32_t token : tokens) {
      if (token >= 0 && token < 256) text.push_back(static_cast<char>(token));
    }
    return text;
  }
};

}  // namespace farskip
