#pragma once
// Several data sets mixed into one, by Megatron's rule.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/index_file.h"
#include "data/samples.h"

namespace farskip {

struct Blend {
  std::vector<std::string> prefixes;
  std::vector<double> weights;  ///< positive, of sum 1, one per prefix; empty: in proportion to the sizes

  bool operator==(const Blend&) const = default;
};

/// Megatron's data_path: prefixes ("a", "b"), or weights before each ("0.7", "a", "0.3", "b"). A list of even length
/// whose every other entry is a number has weights. Throws Error for numbers before some prefixes only, a weight that
/// is not positive, or an empty list.
Blend parse_blend(const std::vector<std::string>& data_path);

/// Which sample of which data set each sample of a blend is.
class BlendIndex {
 public:
  /// Sample i comes from the data set that is furthest behind its share, the d with the largest
  ///   weights[d] * max(i, 1) - (samples taken from d so far), the first of equals,
  /// and is the next sample of that data set (megatron/core/datasets/helpers.cpp, build_blending_indices). So entry i
  /// depends on the weights and i alone: a longer blend begins like a shorter one. Kept in an IndexFile of `folder`.
  static BlendIndex weighted(const std::vector<double>& weights, int64_t num_samples, const std::string& folder,
                             const std::string& name);
  /// Takes exactly sizes[d] samples of every data set, by the same rule among those not used up, with weights in
  /// proportion to the sizes (build_exhaustive_blending_indices).
  static BlendIndex exhaustive(const std::vector<int64_t>& sizes, const std::string& folder, const std::string& name);

  int64_t size() const { return static_cast<int64_t>(samples_.size()); }
  int64_t dataset(int64_t i) const { return datasets_[static_cast<size_t>(i)]; }
  int64_t sample(int64_t i) const { return samples_[static_cast<size_t>(i)]; }
  /// Samples taken of each data set.
  std::span<const int64_t> counts() const { return counts_; }
  const std::string& path() const { return file_.path(); }

 private:
  BlendIndex(const std::vector<double>& weights, const std::vector<int64_t>& limits, int64_t num_samples,
             const std::string& folder, const std::string& name);

  IndexFile file_;
  std::span<const int64_t> counts_;
  std::span<const int64_t> samples_;
  std::span<const int16_t> datasets_;
};

class BlendedDataset : public SampleDataset {
 public:
  /// datasets[d] has at least index.counts()[d] samples (null where that is 0), all of one sequence length.
  BlendedDataset(BlendIndex index, std::vector<std::shared_ptr<const SampleDataset>> datasets);

  int64_t size() const override { return index_.size(); }
  int64_t seq_length() const override { return seq_length_; }
  Sample sample(int64_t i) const override;
  const BlendIndex& index() const { return index_; }
  const std::vector<std::shared_ptr<const SampleDataset>>& datasets() const { return datasets_; }

 private:
  BlendIndex index_;
  std::vector<std::shared_ptr<const SampleDataset>> datasets_;
  int64_t seq_length_ = 0;
};

}  // namespace farskip
