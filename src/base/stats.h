#pragma once
// Statistics of repeated measurements: medians, paired differences and their intervals. Everything is deterministic.

#include <cstdint>
#include <functional>
#include <vector>

namespace farskip {

/// A figure with the interval it is believed to lie in.
struct Estimate {
  double value = 0;
  double low = 0;
  double high = 0;
  int64_t num_samples = 0;
};

double mean(const std::vector<double>& values);
/// The middle value, or the mean of the two middle ones.
double median(std::vector<double> values);
/// percent in 0..100, linear between neighbours (numpy's default).
double percentile(std::vector<double> values, double percent);

/// The median with its exact, distribution-free interval: between the k-th smallest and the k-th largest value, with
/// the largest k that the binomial distribution of "samples below the median" allows at this confidence. Fewer than 6
/// samples cannot give 95 %; then the whole range is returned, which covers less.
Estimate median_interval(const std::vector<double>& values, double confidence = 0.95);

/// median_interval of before[i] - after[i]: for runs interleaved step by step, so that drift of the machine cancels.
Estimate paired_difference(const std::vector<double>& before, const std::vector<double>& after,
                           double confidence = 0.95);

/// Any figure made of several measurements (a ratio of medians, say) with its percentile-bootstrap interval.
/// `statistic` computes the figure from the samples whose indices it is given (repetitions occur); interleaved runs
/// share the index, so pairs stay together. Draws in which the figure is not finite are left out.
Estimate bootstrap_interval(int64_t num_samples, const std::function<double(const std::vector<int64_t>&)>& statistic,
                            double confidence = 0.95, int num_draws = 2000, uint64_t seed = 1);

}  // namespace farskip
