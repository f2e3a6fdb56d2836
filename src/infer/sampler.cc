#include "infer/sampler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/philox.h"

namespace farskip {
namespace {

struct Candidate {
  int32_t id;
  double weight;  ///< e^(logit - largest), over the temperature
};

bool likelier(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

double total(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& c : candidates) sum += c.weight;
  return sum;
}

void keep_top_k(std::vector<Candidate>& candidates, int64_t k) {
  if (k <= 0 || k >= std::ssize(candidates)) return;
  std::nth_element(candidates.begin(), candidates.begin() + k - 1, candidates.end(), likelier);
  candidates.resize(k);
}

void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  const double all = total(candidates);
  // All of those below this do not reach 1 - p together, so none of them is wanted.
  const double least = (1 - p) * all / static_cast<double>(candidates.size());
  std::erase_if(candidates, [&](const Candidate& c) { return c.weight < least; });
  std::sort(candidates.begin(), candidates.end(), likelier);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < p * all)) sum += candidates[kept++].weight;
  candidates.resize(kept);
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options, uint64_t stream, const std::vector<int32_t>& prompt,
                 const std::vector<int32_t>& drawn)
    : options_(options), stream_(stream), num_drawn_(drawn.size()) {
  options_.check();
  for (const int32_t id : prompt) made_[id] = 0;
  for (const int32_t id : drawn) ++made_[id];
}

void Sampler::penalize(std::vector<float>& logits) const {
  if (options_.repetition_penalty == 1 && options_.presence_penalty == 0 && options_.frequency_penalty == 0) return;
  const auto repetition = static_cast<float>(options_.repetition_penalty);
  for (const auto& [id, count] : made_) {
    float& logit = logits.at(id);
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (count == 0) continue;
    logit -= static_cast<float>(options_.presence_penalty + options_.frequency_penalty * static_cast<double>(count));
  }
}

int32_t Sampler::next(const at::Tensor& logits_V) {
  const float* begin = logits_V.const_data_ptr<float>();
  std::vector<float> logits(begin, begin + logits_V.size(0));
  penalize(logits);
  auto id = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (!std::isfinite(logits[id])) fail("the model's logits are not finite ({})", logits[id]);
  if (options_.temperature > 0) {
    const double largest = logits[id];
    std::vector<Candidate> candidates;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double weight = std::exp((logits[i] - largest) / options_.temperature);
      if (weight > 0 && weight >= options_.min_p) candidates.push_back({static_cast<int32_t>(i), weight});
    }
    keep_top_k(candidates, options_.top_k);
    keep_top_p(candidates, options_.top_p);
    std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    double point =
        static_cast<double>(Philox(options_.seed, stream_).at(num_drawn_) >> 11) * 0x1p-53 * total(candidates);
    id = candidates.back().id;
    for (const Candidate& c : candidates) {
      if (point < c.weight) {
        id = c.id;
        break;
      }
      point -= c.weight;
    }
  }
  ++num_drawn_;
  ++made_[id];
  return id;
}

}  // namespace farskip
