#include "tokenizer/byte_alphabet.h"

#include "tokenizer/utf8.h"

namespace farskip {

ByteAlphabet::ByteAlphabet() {
  byte_of_.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const char32_t code = prints ? static_cast<char32_t>(byte) : next++;
    append_utf8(code, spellings_[static_cast<size_t>(byte)]);
    byte_of_[code] = static_cast<int16_t>(byte);
  }
}

std::string ByteAlphabet::spell(std::string_view bytes) const {
  std::string token;
  for (const char byte : bytes) token += spelling(static_cast<uint8_t>(byte));
  return token;
}

std::optional<std::string> ByteAlphabet::bytes(std::string_view token) const {
  std::string result;
  while (!token.empty()) {
    const Utf8Char c = first_utf8_char(token);
    if (!c.valid || c.code >= byte_of_.size() || byte_of_[c.code] < 0) return std::nullopt;
    result += static_cast<char>(byte_of_[c.code]);
    token.remove_prefix(static_cast<size_t>(c.num_bytes));
  }
  return result;
}

}  // namespace farskip
