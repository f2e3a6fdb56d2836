#include "tokenizer/utf8.h"

#include <cstring>

#include "base/error.h"

namespace farskip {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

/// The end of the ASCII that `text` begins with.
size_t ascii_bytes(std::string_view text) {
  size_t i = 0;
  for (uint64_t word; i + 8 <= text.size(); i += 8) {
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

/// The first byte from which `text` is ill-formed, or its size.
size_t valid_bytes(std::string_view text) {
  size_t i = ascii_bytes(text);
  while (i < text.size()) {
    const Utf8Char c = first_utf8_char(text.substr(i));
    if (!c.valid) return i;
    i += static_cast<size_t>(c.num_bytes);
    i += ascii_bytes(text.substr(i));
  }
  return i;
}

}  // namespace

Utf8Char first_utf8_char(std::string_view text) {
  FARSKIP_CHECK(!text.empty());
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1, true, false};
  // Bounds of the second byte keep out overlong forms, surrogates and what is above U+10FFFF.
  int num_bytes;
  unsigned char low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    num_bytes = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    num_bytes = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    num_bytes = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {kReplacement, 1, false, false};
  }
  char32_t code = lead & (0x7F >> num_bytes);
  for (int i = 1; i < num_bytes; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {kReplacement, i, false, true};
    const unsigned char c = byte(static_cast<size_t>(i));
    if (c < low || c > high) return {kReplacement, i, false, false};
    code = (code << 6) | (c & 0x3F);
    low = 0x80, high = 0xBF;
  }
  return {code, num_bytes, true, false};
}

void append_utf8(char32_t code, std::string& text) {
  if (code < 0x80) {
    text += static_cast<char>(code);
    return;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  text += static_cast<char>(((0xF0u << (3 - more)) & 0xF0u) | (code >> (6 * more)));
  for (int i = more - 1; i >= 0; --i) text += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
}

bool is_utf8(std::string_view text) { return valid_bytes(text) == text.size(); }

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = valid_bytes(text);
    result += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    append_utf8(kReplacement, result);
    text.remove_prefix(static_cast<size_t>(first_utf8_char(text).num_bytes));
  }
  return result;
}

bool is_white_space(char32_t code) {
  return (code >= 0x9 && code <= 0xD) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

size_t cut_utf8_bytes(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const std::string_view end = text.substr(text.size() - back);
    if ((static_cast<unsigned char>(end[0]) & 0xC0) == 0x80) continue;
    const Utf8Char c = first_utf8_char(end);
    return c.cut && static_cast<size_t>(c.num_bytes) == back ? back : 0;
  }
  return 0;
}

}  // namespace farskip
