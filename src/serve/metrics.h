#pragma once
// What /metrics tells: counters and histograms under vLLM's names, in Prometheus' text format 0.0.4.

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "infer/engine.h"

namespace farskip::serve {

class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1, 0) {}
  void observe(double value);
  /// Lines NAME_bucket{LABELS,le="..."}, NAME_sum and NAME_count.
  std::string text(const std::string& name, const std::string& labels) const;

 private:
  std::vector<double> bounds_;   ///< inclusive upper ones
  std::vector<int64_t> counts_;  ///< the last: above all
  double sum_ = 0;
};

/// Safe to use from any thread.
class Metrics {
 public:
  explicit Metrics(std::string model_name, int64_t max_positions);

  void first_token(double seconds);
  void next_token(double seconds);  ///< since the one before it, of the same sequence
  /// `per_token_s`: the mean after the first; below 0: there was no second.
  void sequence_ended(const std::string& finish_reason, int64_t prompt_tokens, int64_t tokens, double latency_s,
                      double per_token_s);
  /// `path` is one of the server's, or "other".
  void answered(const std::string& method, const std::string& path, int status);

  /// Of one rank 0: gauges are the engine's as they are now.
  std::string text(const EngineStats& stats) const;

 private:
  std::string model_name_;
  mutable std::mutex mutex_;
  Histogram first_token_, inter_token_, per_token_, latency_, prompt_tokens_, generated_tokens_;
  std::map<std::string, int64_t> ended_;
  std::map<std::tuple<std::string, std::string, int>, int64_t> answered_;
};

}  // namespace farskip::serve
