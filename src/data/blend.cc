#include "data/blend.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"

namespace farskip {
namespace {

std::optional<double> parse_number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<double> normalized(std::vector<double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// BlendIndex::weighted's rule; a data set with limits[d] samples taken is out (empty: no limits).
void fill_blend(std::span<const double> weights, std::span<const int64_t> limits, std::span<int64_t> counts,
                std::span<int64_t> samples, std::span<int16_t> datasets) {
  for (size_t i = 0; i < samples.size(); ++i) {
    const double position = std::max(static_cast<double>(i), 1.0);
    size_t furthest = 0;
    double largest_error = std::numeric_limits<double>::lowest();
    for (size_t d = 0; d < weights.size(); ++d) {
      if (weights[d] == 0 || (!limits.empty() && counts[d] == limits[d])) continue;
      const double error = weights[d] * position - static_cast<double>(counts[d]);
      if (error > largest_error) {
        furthest = d;
        largest_error = error;
      }
    }
    datasets[i] = static_cast<int16_t>(furthest);
    samples[i] = counts[furthest]++;
  }
}

}  // namespace

Blend parse_blend(const std::vector<std::string>& data_path) {
  if (data_path.empty()) fail("data_path is empty; name the prefix of a data set, or weights and prefixes in turn");
  std::vector<std::string> numbers, others;
  for (size_t i = 0; i < data_path.size(); i += 2) {
    (parse_number(data_path[i]) ? numbers : others).push_back(data_path[i]);
  }
  if (numbers.empty()) return {data_path, {}};
  const std::string list = fmt::format("data_path=[{}]", fmt::join(data_path, ", "));
  if (!others.empty()) {
    fail("{}: {} stands where a weight was expected; give a weight before every prefix, or none", list, others.front());
  }
  if (data_path.size() % 2 != 0) fail("{}: no prefix follows the last weight {}", list, data_path.back());
  Blend blend;
  for (size_t i = 0; i < data_path.size(); i += 2) {
    const double weight = *parse_number(data_path[i]);
    if (!std::isfinite(weight) || weight <= 0) {
      fail("{}: the weight {} of {} is not positive; leave out data sets that shall not be read", list, data_path[i],
           data_path[i + 1]);
    }
    blend.weights.push_back(weight);
    blend.prefixes.push_back(data_path[i + 1]);
  }
  blend.weights = normalized(std::move(blend.weights));
  return blend;
}

BlendIndex BlendIndex::weighted(const std::vector<double>& weights, int64_t num_samples, const std::string& folder,
                                const std::string& name) {
  return {normalized(weights), {}, num_samples, folder, name};
}

BlendIndex BlendIndex::exhaustive(const std::vector<int64_t>& sizes, const std::string& folder,
                                  const std::string& name) {
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  return {normalized({sizes.begin(), sizes.end()}), sizes, total, folder, name};
}

BlendIndex::BlendIndex(const std::vector<double>& weights, const std::vector<int64_t>& limits, int64_t num_samples,
                       const std::string& folder, const std::string& name) {
  FARSKIP_CHECK(num_samples > 0 && !weights.empty());
  const auto num_datasets = static_cast<int64_t>(weights.size());
  if (num_datasets > std::numeric_limits<int16_t>::max()) {
    fail("{} data sets, but a blend has at most {}; join some of them", num_datasets,
         std::numeric_limits<int16_t>::max());
  }
  const std::string description = fmt::format("Blend index, version 1\nweights {}\nlimits {}\nsamples {}\n",
                                              fmt::join(weights, " "), fmt::join(limits, " "), num_samples);
  const int64_t samples_at = num_datasets * 8, datasets_at = samples_at + num_samples * 8;
  file_ = IndexFile(folder, name, description, datasets_at + num_samples * 2, [&](std::span<std::byte> bytes) {
    fill_blend(weights, limits, view_of<int64_t>(bytes, 0, num_datasets),
               view_of<int64_t>(bytes, samples_at, num_samples), view_of<int16_t>(bytes, datasets_at, num_samples));
  });
  counts_ = file_.array<int64_t>(0, num_datasets);
  samples_ = file_.array<int64_t>(samples_at, num_samples);
  datasets_ = file_.array<int16_t>(datasets_at, num_samples);
}

BlendedDataset::BlendedDataset(BlendIndex index, std::vector<std::shared_ptr<const SampleDataset>> datasets)
    : index_(std::move(index)), datasets_(std::move(datasets)) {
  FARSKIP_CHECK(index_.counts().size() == datasets_.size());
  for (size_t d = 0; d < datasets_.size(); ++d) {
    if (index_.counts()[d] == 0) continue;
    FARSKIP_CHECK(datasets_[d] != nullptr && datasets_[d]->size() >= index_.counts()[d]);
    if (seq_length_ == 0) seq_length_ = datasets_[d]->seq_length();
    FARSKIP_CHECK(datasets_[d]->seq_length() == seq_length_);
  }
}

Sample BlendedDataset::sample(int64_t i) const {
  FARSKIP_CHECK(i >= 0 && i < size());
  const int64_t d = index_.dataset(i), j = index_.sample(i);
  if (d < 0 || d >= static_cast<int64_t>(datasets_.size()) || j < 0 || j >= index_.counts()[static_cast<size_t>(d)]) {
    fail("{}: damaged; delete it, it is built anew", index_.path());
  }
  return datasets_[static_cast<size_t>(d)]->sample(j);
}

}  // namespace farskip
