#pragma once
// SHA-256 (FIPS 180-4), so that files can be checked with `sha256sum -c`.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace farskip {

class Sha256 {
 public:
  void update(const void* data, size_t num_bytes);
  /// 64 hexadecimal digits of everything given to update().
  std::string hex() const;

 private:
  void compress(const uint8_t* block);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> pending_{};
  uint64_t num_bytes_ = 0;
};

}  // namespace farskip
