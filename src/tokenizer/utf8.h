#pragma once
// UTF-8: reading characters, and what becomes of bytes that are none.

#include <cstdint>
#include <string>
#include <string_view>

namespace farskip {

struct Utf8Char {
  char32_t code = 0;  ///< U+FFFD where the bytes are no character
  int num_bytes = 0;  ///< 1 to 4; of no character: the maximal subpart (see replace_invalid_utf8)
  bool valid = false;
  bool cut = false;  ///< the text ends within the character: more bytes could make it valid
};

/// The character at the beginning of `text`. REQUIRES: !text.empty().
Utf8Char first_utf8_char(std::string_view text);
void append_utf8(char32_t code, std::string& text);
bool is_utf8(std::string_view text);
/// `text` with U+FFFD for each maximal subpart of an ill-formed sequence (Unicode 15, 3.9, table 3-8), which is what
/// bytes.decode(errors="replace") of Python and String::from_utf8_lossy of Rust do.
std::string replace_invalid_utf8(std::string_view text);
/// Unicode's White_Space.
bool is_white_space(char32_t code);
/// Bytes at the end of `text` that may be the beginning of a character: 0 to 3.
size_t cut_utf8_bytes(std::string_view text);

}  // namespace farskip
