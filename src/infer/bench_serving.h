#pragma once
// farskip bench serving: requests that arrive one by one, as users send them, and how long each waits. Metrics are
// vLLM's (benchmarks/benchmark_serving.py), by its names.

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "trace/table.h"

namespace farskip {

struct ServingOptions {
  int64_t num_prompts = 100;
  double request_rate = 0;      ///< arrivals per second, in the mean (a Poisson process); 0: all at once
  int64_t max_concurrency = 0;  ///< requests under way at a time; 0: any number
  int64_t input = 128;          ///< tokens of each prompt, random
  int64_t output = 32;          ///< tokens made for each
  double range_ratio = 0;       ///< lengths vary uniformly by this part of themselves, up and down; below 1
  std::vector<double> percentiles = {90, 99};
  std::map<std::string, double> goodput;  ///< "ttft", "tpot", "e2el" -> the most ms that a good request takes
  uint64_t seed = 1;
  double timeout_s = 600;  ///< without any event of any request

  /// Throws Error for values outside their range and for other names in goodput.
  void check() const;
  /// "ttft:200,tpot:50" -> goodput.
  static std::map<std::string, double> parse_goodput(const std::string& text);
};

/// What came of one request. Times in ms.
struct ServedRequest {
  int64_t input = 0, output = 0;
  double ttft = 0;               ///< from its arrival to its first token
  std::vector<double> itl = {};  ///< between its following events
  double e2el = 0;               ///< to its last token
  std::string error = {};        ///< empty: it was completed
  /// Per output token after the first; 0 where there was but one.
  double tpot() const { return output > 1 ? (e2el - ttft) / static_cast<double>(output - 1) : 0; }
};

struct ServingResult {
  ServingOptions options;
  std::string model;
  double duration_s = 0;  ///< from the first arrival to the last token
  std::vector<ServedRequest> requests;

  int64_t completed() const;
  int64_t total_input() const;  ///< of completed requests
  int64_t total_output() const;
  double goodput() const;  ///< completed requests per second that keep within options.goodput
  /// The keys of vLLM's --save-result.
  nlohmann::json to_json() const;
  Table table() const;
};

/// Seconds after the start at which each request arrives.
std::vector<double> arrival_times(const ServingOptions& options);

/// Sends the requests to `service` as they arrive and waits until all have ended. Ids are below `vocab_size`. Requests
/// that the service refuses are outcomes with an error. Throws Error where nothing happens for timeout_s.
ServingResult bench_serving(const ServingOptions& options, GenerationService& service, int64_t vocab_size);

}  // namespace farskip
