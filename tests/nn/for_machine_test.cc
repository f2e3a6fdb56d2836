#include "nn/for_machine.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace farskip::nn {
namespace {

std::vector<float> exponentials(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  const float* in = x.data();
  float* out = y.data();
  parallel_rows(static_cast<int64_t>(x.size()), 1, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t i = begin; i < end; ++i) out[i] = exponential(in[i]);
  });
  return y;
}

/// Compiled without OpenMP, at::parallel_for quietly runs on one thread.
TEST(ParallelRows, RunOnTheThreadsOfLibtorch) {
  const int num_threads = at::get_num_threads();
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  int64_t rows = 0;
  parallel_rows(4, 1 << 20, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
    rows += end - begin;
  });
  at::set_num_threads(num_threads);
  EXPECT_EQ(threads.size(), 2U);
  EXPECT_EQ(rows, 4);
}

TEST(Exponential, WithinTwoUnitsInTheLastPlace) {
  std::vector<float> x;
  for (float value = -87.25F; value < 88.0F; value += 0.00117F) x.push_back(value);
  const std::vector<float> y = exponentials(x);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(y[i] - exact) / exact);
  }
  EXPECT_LT(worst, 2 * std::numeric_limits<float>::epsilon());
}

TEST(Exponential, Ends) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> y = exponentials({-infinity, -1e30F, -88.0F, 0.0F, -0.0F, 88.0F});
  EXPECT_EQ(y[0], 0.0F);
  EXPECT_EQ(y[1], 0.0F);
  EXPECT_EQ(y[2], 0.0F);
  EXPECT_EQ(y[3], 1.0F);
  EXPECT_EQ(y[4], 1.0F);
  EXPECT_TRUE(std::isfinite(y[5]));
  EXPECT_TRUE(std::isnan(exponentials({std::numeric_limits<float>::quiet_NaN()})[0]));
}

TEST(LaneSum, TheOrderIsThatOfSixteenPartialSumsByHalves) {
  for (const int64_t n : {0, 1, 15, 16, 17, 100, 1000}) {
    std::vector<float> lanes(16, 0.0F);
    auto term = [](int64_t i) { return 1.0F / static_cast<float>(i + 1); };
    for (int64_t i = 0; i < n; ++i) lanes[i % 16] += term(i);
    for (int64_t half = 8; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    EXPECT_EQ(lane_sum<float>(n, term), lanes[0]) << n;
  }
}

TEST(LaneMax, FindsTheLargestWhereverItIs) {
  for (const int64_t n : {1, 15, 16, 33, 100}) {
    for (int64_t place = 0; place < n; ++place) {
      std::vector<float> values(n, -5.0F);
      values[place] = -4.0F;
      EXPECT_EQ((lane_max<float, float>(n, values.data())), -4.0F) << n << " " << place;
    }
  }
}

TEST(ParallelRows, EveryRowOnce) {
  for (const int64_t num_rows : {0, 1, 1000, 100003}) {
    std::vector<int> seen(num_rows, 0);
    int* count = seen.data();
    parallel_rows(num_rows, 3, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t i = begin; i < end; ++i) ++count[i];
    });
    for (int64_t i = 0; i < num_rows; ++i) ASSERT_EQ(seen[i], 1) << i;
  }
}

}  // namespace
}  // namespace farskip::nn
