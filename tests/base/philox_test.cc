#include "base/philox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

namespace farskip {
namespace {

using Block = std::array<uint32_t, 4>;

// Known answers of the authors' library (Random123, kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, IsAFunctionOfItsIndex) {
  Philox walked(7, 3);
  for (uint64_t i = 0; i < 10; ++i) EXPECT_EQ(walked.next(), Philox(7, 3).at(i));
  EXPECT_EQ(Philox(0, 0).at(0), 0xe169c58d6627e8d5u);
  EXPECT_EQ(Philox(0, 0).at(1), 0x9b00dbd8bc57ac4cu);
  EXPECT_NE(Philox(7, 3).at(0), Philox(7, 4).at(0));
  EXPECT_NE(Philox(7, 3).at(0), Philox(8, 3).at(0));
}

TEST(Philox, BelowIsUniform) {
  Philox random(1, 0);
  std::array<int, 5> counts{};
  for (int i = 0; i < 50000; ++i) ++counts.at(random.below(5));
  for (const int count : counts) EXPECT_NEAR(count, 10000, 400);  // 4.5 standard deviations
  EXPECT_EQ(random.below(1), 0u);
}

TEST(Philox, PermutationsArePermutationsAndDiffer) {
  const std::vector<int64_t> order = random_permutation(1000, 42, 0);
  const std::set<int64_t> seen(order.begin(), order.end());
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), 999);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  EXPECT_EQ(order, random_permutation(1000, 42, 0));
  EXPECT_NE(order, random_permutation(1000, 42, 1));
  EXPECT_NE(order, random_permutation(1000, 43, 0));
  EXPECT_TRUE(random_permutation(0, 1, 1).empty());
  // Every order of three things comes up about as often as any other.
  std::map<std::vector<int64_t>, int> counts;
  for (uint64_t seed = 0; seed < 6000; ++seed) ++counts[random_permutation(3, seed, 0)];
  EXPECT_EQ(counts.size(), 6u);
  for (const auto& [permutation, count] : counts) EXPECT_NEAR(count, 1000, 130);
}

// The order is part of the contract: a resumed training must find the data where it left it.
TEST(Philox, OrderDoesNotChangeBetweenReleases) {
  EXPECT_EQ(random_permutation(8, 1234, 0), (std::vector<int64_t>{4, 1, 2, 6, 7, 3, 5, 0}));
}

}  // namespace
}  // namespace farskip
