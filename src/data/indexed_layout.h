#pragma once
// The fixed part of an .idx file, shared by reader and writer: magic (9 bytes), version u64, token type u8, number of
// sequences u64, number of document bounds u64; all little-endian, nothing aligned.

#include <cstdint>
#include <string_view>

namespace farskip {

inline constexpr std::string_view kIndexMagic{"MMIDIDX\0\0", 9};
inline constexpr uint64_t kIndexVersion = 1;
inline constexpr int64_t kIndexHeaderBytes = 9 + 8 + 1 + 8 + 8;

}  // namespace farskip
