#pragma once
// The printable alphabet in which byte-level vocabularies spell bytes (GPT-2's): every byte is a character, those that
// print stand for themselves, the others for U+0100 and up.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace farskip {

class ByteAlphabet {
 public:
  ByteAlphabet();
  /// The character of a byte, in UTF-8.
  const std::string& spelling(uint8_t byte) const { return spellings_[byte]; }
  /// The spelling of bytes.
  std::string spell(std::string_view bytes) const;
  /// The bytes that `token` spells; nothing where it holds another character.
  std::optional<std::string> bytes(std::string_view token) const;

 private:
  std::array<std::string, 256> spellings_;
  std::array<int16_t, 0x144> byte_of_;  ///< by code point; -1: none
};

}  // namespace farskip
