#include "base/stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace farskip {
namespace {

std::vector<double> one_to(int n) {
  std::vector<double> values(n);
  std::iota(values.begin(), values.end(), 1.0);
  std::reverse(values.begin(), values.end());  // order must not matter
  return values;
}

TEST(Stats, MeanMedianAndPercentiles) {
  EXPECT_DOUBLE_EQ(mean({1, 2, 6}), 3);
  EXPECT_DOUBLE_EQ(median({5, 1, 3}), 3);
  EXPECT_DOUBLE_EQ(median({4, 1, 3, 2}), 2.5);
  EXPECT_DOUBLE_EQ(percentile({10, 20, 30, 40}, 25), 17.5);
  EXPECT_DOUBLE_EQ(percentile({10, 20, 30, 40}, 0), 10);
  EXPECT_DOUBLE_EQ(percentile({10, 20, 30, 40}, 100), 40);
  EXPECT_DOUBLE_EQ(percentile({7}, 90), 7);
}

// Tabulated ranks of the sign test's interval: 10 samples: 2nd and 9th; 20: 6th and 15th; 100: 40th and 61st.
TEST(Stats, MedianIntervalIsTheSignTests) {
  for (const auto& [n, low, high] : {std::tuple{6, 1, 6}, {10, 2, 9}, {20, 6, 15}, {100, 40, 61}}) {
    const Estimate estimate = median_interval(one_to(n));
    EXPECT_EQ(estimate.low, low) << n;
    EXPECT_EQ(estimate.high, high) << n;
    EXPECT_DOUBLE_EQ(estimate.value, (n + 1) / 2.0);
    EXPECT_EQ(estimate.num_samples, n);
  }
}

TEST(Stats, FewSamplesGiveTheirRange) {
  const Estimate estimate = median_interval({3, 1, 2});
  EXPECT_EQ(estimate.low, 1);
  EXPECT_EQ(estimate.high, 3);
}

TEST(Stats, ManySamplesDoNotUnderflow) {
  const Estimate estimate = median_interval(one_to(5000));
  EXPECT_NEAR(estimate.low, 2500 - 0.98 * std::sqrt(5000.0), 2);
  EXPECT_NEAR(estimate.high, 2501 + 0.98 * std::sqrt(5000.0), 2);
}

TEST(Stats, PairsCancelDrift) {
  std::vector<double> before, after;
  for (int step = 0; step < 50; ++step) {
    before.push_back(100 + step * step);
    after.push_back(97 + step * step);
  }
  const Estimate estimate = paired_difference(before, after);
  EXPECT_DOUBLE_EQ(estimate.value, 3);
  EXPECT_DOUBLE_EQ(estimate.low, 3);
  EXPECT_DOUBLE_EQ(estimate.high, 3);
}

TEST(Stats, BootstrapIsDeterministicAndCoversTheFigure) {
  const std::vector<double> values = one_to(101);
  const auto statistic = [&](const std::vector<int64_t>& indices) {
    std::vector<double> drawn;
    for (int64_t index : indices) drawn.push_back(values[index]);
    return median(drawn);
  };
  const Estimate first = bootstrap_interval(101, statistic);
  const Estimate second = bootstrap_interval(101, statistic);
  EXPECT_EQ(first.low, second.low);
  EXPECT_EQ(first.high, second.high);
  EXPECT_DOUBLE_EQ(first.value, 51);
  const Estimate exact = median_interval(values);
  EXPECT_NEAR(first.low, exact.low, 5);
  EXPECT_NEAR(first.high, exact.high, 5);
}

TEST(Stats, BootstrapSkipsDrawsThatAreNotFinite) {
  const auto statistic = [](const std::vector<int64_t>& indices) {
    double sum = 0;
    for (int64_t index : indices) sum += static_cast<double>(index);
    return 1 / sum;  // infinite where only the first sample was drawn
  };
  const Estimate estimate = bootstrap_interval(2, statistic);
  EXPECT_TRUE(std::isfinite(estimate.high));
  EXPECT_DOUBLE_EQ(estimate.high, 1);
  EXPECT_DOUBLE_EQ(estimate.low, 0.5);
}

TEST(Stats, RefusesWhatHasNoAnswer) {
  EXPECT_THROW(mean({}), Error);
  EXPECT_THROW(median({}), Error);
  EXPECT_THROW(percentile({1}, 101), Error);
  EXPECT_THROW(percentile({1}, std::nan("")), Error);
  EXPECT_THROW(median_interval({1, 2}, 95), Error);
  EXPECT_THROW(paired_difference({1, 2}, {1}), Error);
  EXPECT_THROW(bootstrap_interval(0, [](const auto&) { return 0.0; }), Error);
}

}  // namespace
}  // namespace farskip
