#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace farskip::serve {
namespace {

// vLLM's, so that dashboards made for it fit.
std::vector<double> first_token_bounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
}
std::vector<double> token_bounds() {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
}
std::vector<double> latency_bounds() {
  return {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
}
/// 1, 2, 5, 10, 20, 50 ... up to `largest`.
std::vector<double> count_bounds(int64_t largest) {
  std::vector<double> bounds;
  for (int64_t power = 1; power <= largest; power *= 10) {
    for (const int64_t factor : {1, 2, 5}) {
      if (factor * power <= largest) bounds.push_back(static_cast<double>(factor * power));
    }
  }
  return bounds;
}

std::string escaped(const std::string& label) {
  std::string text;
  for (const char c : label) {
    if (c == '\\' || c == '"') text += '\\';
    text += c == '\n' ? "\\n" : std::string(1, c);
  }
  return text;
}

std::string header(const char* name, const char* type, const char* help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

}  // namespace

void Histogram::observe(double value) {
  ++counts_[std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin()];
  sum_ += value;
}

std::string Histogram::text(const std::string& name, const std::string& labels) const {
  std::string result;
  int64_t total = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    total += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    result += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, total);
  }
  return result + fmt::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, sum_, name, labels, total);
}

Metrics::Metrics(std::string model_name, int64_t max_positions)
    : model_name_(std::move(model_name)),
      first_token_(first_token_bounds()),
      inter_token_(token_bounds()),
      per_token_(token_bounds()),
      latency_(latency_bounds()),
      prompt_tokens_(count_bounds(max_positions)),
      generated_tokens_(count_bounds(max_positions)) {
  for (const char* reason : {"stop", "length", "abort", "error"}) ended_[reason] = 0;
}

void Metrics::first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.observe(seconds);
}

void Metrics::next_token(double seconds) {
  const std::lock_guard lock(mutex_);
  inter_token_.observe(seconds);
}

void Metrics::sequence_ended(const std::string& finish_reason, int64_t prompt_tokens, int64_t tokens, double latency_s,
                             double per_token_s) {
  const std::lock_guard lock(mutex_);
  ++ended_[finish_reason];
  if (finish_reason == "abort" || finish_reason == "error") return;  // their lengths say nothing
  prompt_tokens_.observe(static_cast<double>(prompt_tokens));
  generated_tokens_.observe(static_cast<double>(tokens));
  latency_.observe(latency_s);
  if (per_token_s >= 0) per_token_.observe(per_token_s);
}

void Metrics::answered(const std::string& method, const std::string& path, int status) {
  const std::lock_guard lock(mutex_);
  ++answered_[{method, path, status}];
}

std::string Metrics::text(const EngineStats& stats) const {
  const std::string labels = fmt::format("engine=\"0\",model_name=\"{}\"", escaped(model_name_));
  std::string result;
  const auto single = [&](const char* name, const char* type, const char* help, auto value) {
    result += header(name, type, help) + fmt::format("{}{{{}}} {}\n", name, labels, value);
  };
  const auto histogram = [&](const char* name, const char* help, const Histogram& h) {
    result += header(name, "histogram", help) + h.text(name, labels);
  };
  single("vllm:num_requests_running", "gauge", "Sequences in the engine's batches.", stats.num_running);
  single("vllm:num_requests_waiting", "gauge", "Sequences waiting to be processed.", stats.num_waiting);
  const double usage = stats.cache_positions > 0 ? static_cast<double>(stats.cache_positions_used) /
                                                       static_cast<double>(stats.cache_positions)
                                                 : 0;
  single("vllm:kv_cache_usage_perc", "gauge", "Part of the cache's positions in use; 1: all.", usage);
  single("vllm:prompt_tokens_total", "counter", "Tokens of prompts.", stats.prompt_tokens);
  single("vllm:generation_tokens_total", "counter", "Tokens generated.", stats.generated_tokens);
  single("vllm:prefix_cache_queries_total", "counter", "Tokens of prompts that were looked up in the cache.",
         stats.prompt_tokens);
  single("vllm:prefix_cache_hits_total", "counter", "Tokens of prompts that were found there.",
         stats.cached_prompt_tokens);
  single("vllm:num_preemptions_total", "counter", "Sequences that lost their place in the cache and began anew.",
         stats.num_preemptions);
  single("farskip:num_steps_total", "counter", "Steps of the engine.", stats.num_steps);

  const std::lock_guard lock(mutex_);
  result += header("vllm:request_success_total", "counter", "Sequences that ended, by reason.");
  for (const auto& [reason, count] : ended_) {
    result += fmt::format("vllm:request_success_total{{{},finished_reason=\"{}\"}} {}\n", labels, reason, count);
  }
  histogram("vllm:time_to_first_token_seconds", "From the request to its first token.", first_token_);
  histogram("vllm:inter_token_latency_seconds", "Between tokens of a sequence.", inter_token_);
  histogram("vllm:time_per_output_token_seconds", "The same, under its older name.", inter_token_);
  histogram("vllm:request_time_per_output_token_seconds", "Mean time of a sequence's tokens but the first.",
            per_token_);
  histogram("vllm:e2e_request_latency_seconds", "From the request to its last token.", latency_);
  histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", prompt_tokens_);
  histogram("vllm:request_generation_tokens", "Tokens generated for a sequence.", generated_tokens_);
  result += header("http_requests_total", "counter", "HTTP requests by method, path and status.");
  for (const auto& [key, count] : answered_) {
    result += fmt::format("http_requests_total{{handler=\"{}\",method=\"{}\",status=\"{}\"}} {}\n", std::get<1>(key),
                          std::get<0>(key), std::get<2>(key), count);
  }
  return result;
}

}  // namespace farskip::serve
