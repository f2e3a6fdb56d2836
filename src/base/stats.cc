#include "base/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"

namespace farskip {
namespace {

void require_samples(const std::vector<double>& values, const char* what) {
  if (values.empty()) fail("{} of no samples; measure at least one", what);
}

void require_confidence(double confidence) {
  if (!(confidence > 0 && confidence < 1)) fail("confidence {} is not between 0 and 1; 0.95 is usual", confidence);
}

double sorted_percentile(const std::vector<double>& sorted, double percent) {
  const double position = percent / 100 * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// The largest k with P(Binomial(n, 1/2) < k) <= tail; 0 where even k = 1 covers too little.
int64_t order_statistic(int64_t n, double tail) {
  const double log_scale = -static_cast<double>(n) * std::log(2.0);
  double cumulative = 0;
  int64_t k = 0;
  while (k < n) {
    const double log_choose =
        std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(static_cast<double>(n - k) + 1.0);
    cumulative += std::exp(log_choose + log_scale);
    if (cumulative > tail) break;
    ++k;
  }
  return k;
}

}  // namespace

double mean(const std::vector<double>& values) {
  require_samples(values, "mean");
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double median(std::vector<double> values) { return percentile(std::move(values), 50); }

double percentile(std::vector<double> values, double percent) {
  require_samples(values, "percentile");
  if (!(percent >= 0 && percent <= 100)) fail("percentile {} is outside 0..100", percent);
  std::sort(values.begin(), values.end());
  return sorted_percentile(values, percent);
}

Estimate median_interval(const std::vector<double>& values, double confidence) {
  require_samples(values, "median");
  require_confidence(confidence);
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const int64_t n = static_cast<int64_t>(sorted.size());
  const int64_t k = std::max<int64_t>(1, order_statistic(n, (1 - confidence) / 2));
  return {sorted_percentile(sorted, 50), sorted[k - 1], sorted[n - k], n};
}

Estimate paired_difference(const std::vector<double>& before, const std::vector<double>& after, double confidence) {
  if (before.size() != after.size()) {
    fail("paired difference of {} and {} samples; run both the same number of times, in turn", before.size(),
         after.size());
  }
  std::vector<double> difference(before.size());
  for (size_t i = 0; i < before.size(); ++i) difference[i] = before[i] - after[i];
  return median_interval(difference, confidence);
}

Estimate bootstrap_interval(int64_t num_samples, const std::function<double(const std::vector<int64_t>&)>& statistic,
                            double confidence, int num_draws, uint64_t seed) {
  if (num_samples < 1 || num_draws < 1) {
    fail("bootstrap of {} samples in {} draws; both must be positive", num_samples, num_draws);
  }
  require_confidence(confidence);
  std::vector<int64_t> indices(num_samples);
  std::iota(indices.begin(), indices.end(), 0);
  const double value = statistic(indices);
  std::mt19937_64 random(seed);
  std::vector<double> draws;
  draws.reserve(num_draws);
  for (int draw = 0; draw < num_draws; ++draw) {
    // The remainder's bias (num_samples / 2^64) is far below any effect; the standard's distributions differ by
    // library.
    for (int64_t& index : indices) index = static_cast<int64_t>(random() % static_cast<uint64_t>(num_samples));
    const double figure = statistic(indices);
    if (std::isfinite(figure)) draws.push_back(figure);
  }
  if (draws.empty()) return {value, value, value, num_samples};
  std::sort(draws.begin(), draws.end());
  const double tail = (1 - confidence) / 2 * 100;
  return {value, sorted_percentile(draws, tail), sorted_percentile(draws, 100 - tail), num_samples};
}

}  // namespace farskip
