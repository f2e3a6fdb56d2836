#include "data/blend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/files.h"
#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int64_t> datasets_of(const BlendIndex& index) {
  std::vector<int64_t> datasets;
  for (int64_t i = 0; i < index.size(); ++i) datasets.push_back(index.dataset(i));
  return datasets;
}

class BlendTest : public ::testing::Test {
 protected:
  BlendIndex weighted(const std::vector<double>& weights, int64_t num_samples) {
    return BlendIndex::weighted(weights, num_samples, folder_.string(), "train");
  }
  BlendIndex exhaustive(const std::vector<int64_t>& sizes) {
    return BlendIndex::exhaustive(sizes, folder_.string(), "train");
  }
  TempFolder folder_;
};

// By hand, errors as (0.7 max(i, 1) - taken, 0.3 max(i, 1) - taken):
// (.7 .3) (-.3 .3) (.4 -.4) (.1 -.1) (-.2 .2) (.5 -.5) (.2 -.2) (-.1 .1) (.6 -.6) (.3 -.3)
TEST_F(BlendTest, TheOneFurthestBehindItsShareIsNext) {
  const BlendIndex index = weighted({0.7, 0.3}, 10);
  EXPECT_THAT(datasets_of(index), ElementsAre(0, 1, 0, 0, 1, 0, 0, 1, 0, 0));
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < 10; ++i) samples.push_back(index.sample(i));
  EXPECT_THAT(samples, ElementsAre(0, 0, 1, 2, 1, 3, 4, 2, 5, 6));
  EXPECT_THAT(index.counts(), ElementsAre(7, 3));
}

TEST_F(BlendTest, WeightsAreShares) {
  EXPECT_EQ(datasets_of(weighted({7, 3}, 10)), datasets_of(weighted({0.7, 0.3}, 10)));
  EXPECT_THAT(weighted({1, 1, 2}, 4000).counts(), ElementsAre(1000, 1000, 2000));
  EXPECT_THAT(weighted({1, 1, 3}, 4000).counts(), ElementsAre(800, 800, 2400));  // another weight, other counts
}

TEST_F(BlendTest, ALongerBlendBeginsAlike) {
  const std::vector<int64_t> brief = datasets_of(weighted({0.21, 0.5, 0.29}, 37));
  std::vector<int64_t> longer = datasets_of(weighted({0.21, 0.5, 0.29}, 1000));
  longer.resize(37);
  EXPECT_EQ(brief, longer);
}

// By hand with weights (3/4, 1/4): (.75 .25) (-.25 .25) (.5 -.5) (.25 -.25).
TEST_F(BlendTest, ExhaustiveTakesEverySampleOnce) {
  EXPECT_THAT(datasets_of(exhaustive({3, 1})), ElementsAre(0, 1, 0, 0));
  const BlendIndex index = exhaustive({5, 0, 17});
  EXPECT_EQ(index.size(), 22);
  EXPECT_THAT(index.counts(), ElementsAre(5, 0, 17));
}

TEST_F(BlendTest, KeptInAFile) {
  const BlendIndex first = weighted({0.7, 0.3}, 10);
  EXPECT_EQ(weighted({0.7, 0.3}, 10).path(), first.path());
  EXPECT_NE(weighted({0.7, 0.3}, 11).path(), first.path());
  EXPECT_NE(weighted({0.6, 0.4}, 10).path(), first.path());
  EXPECT_EQ(folder_.names().size(), 3u);
}

TEST(ParseBlend, PrefixesOrWeightsAndPrefixes) {
  EXPECT_EQ(parse_blend({"a"}), (Blend{{"a"}, {}}));
  EXPECT_EQ(parse_blend({"a", "b"}), (Blend{{"a", "b"}, {}}));
  EXPECT_EQ(parse_blend({"3", "a", "1", "b"}), (Blend{{"a", "b"}, {0.75, 0.25}}));
  EXPECT_EQ(parse_blend({"0.5", "a"}), (Blend{{"a"}, {1.0}}));
}

TEST(ParseBlend, Errors) {
  EXPECT_THAT(error_of([] { parse_blend({}); }), HasSubstr("data_path is empty"));
  EXPECT_THAT(error_of([] { parse_blend({"0.7", "a", "b", "c"}); }), HasSubstr("b stands where a weight was expected"));
  EXPECT_THAT(error_of([] { parse_blend({"0.7", "a", "0.3"}); }), HasSubstr("no prefix follows the last weight 0.3"));
  for (const std::string weight : {"0", "-1", "nan", "inf"}) {
    EXPECT_THAT(error_of([&] {
                  parse_blend({"1", "a", weight, "b"});
                }),
                HasSubstr("the weight " + weight + " of b is not positive"));
  }
}

}  // namespace
}  // namespace farskip
