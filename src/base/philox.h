#pragma once
// Random numbers that are a pure function of (seed, stream, index): Philox4x32-10 of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The same on every platform and for any number of ranks, and
// any index can be computed without those before it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace farskip {

/// One block of Philox4x32-10.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// The sequence of 64-bit numbers of one (seed, stream): key = seed, counter = (index / 2, stream), low words first; a
/// block gives the numbers 2j (words 0, 1) and 2j + 1 (words 2, 3).
class Philox {
 public:
  constexpr Philox(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  constexpr uint64_t at(uint64_t index) const {
    const uint64_t block = index / 2;
    const std::array<uint32_t, 4> words =
        philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(stream_),
                    static_cast<uint32_t>(stream_ >> 32)},
                   {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
    return index % 2 == 0 ? words[0] | uint64_t{words[1]} << 32 : words[2] | uint64_t{words[3]} << 32;
  }
  constexpr uint64_t next() { return at(index_++); }

  /// Uniform in [0, bound): the low bits of next(), as many as bound - 1 has, drawn again until they are below bound.
  constexpr uint64_t below(uint64_t bound) {
    uint64_t mask = bound - 1;
    for (int shift = 1; shift < 64; shift *= 2) mask |= mask >> shift;
    for (;;) {
      const uint64_t candidate = next() & mask;
      if (candidate < bound) return candidate;
    }
  }

 private:
  uint64_t seed_;
  uint64_t stream_;
  uint64_t index_ = 0;
};

/// Writes a random order of 0 .. order.size()-1 (Fisher and Yates, from the last place down).
inline void random_permutation(std::span<int64_t> order, uint64_t seed, uint64_t stream) {
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  Philox random(seed, stream);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
}

inline std::vector<int64_t> random_permutation(int64_t size, uint64_t seed, uint64_t stream) {
  std::vector<int64_t> order(static_cast<size_t>(size));
  random_permutation(std::span<int64_t>(order), seed, stream);
  return order;
}

}  // namespace farskip
