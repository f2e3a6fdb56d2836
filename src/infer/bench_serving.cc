#include "infer/bench_serving.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/philox.h"
#include "base/stats.h"
#include "transport/clock.h"

namespace farskip {
namespace {

/// Streams of the seed: what one kind of number does not change another.
enum Stream : uint64_t { arrivals, lengths, tokens };

double uniform(Philox& random) { return static_cast<double>(random.next() >> 11) * 0x1p-53; }

/// What requests tell, from any thread.
class Board {
 public:
  explicit Board(int64_t num) : marks_(num) {}

  void event(size_t request, const GenerationEvent& event) {
    const double now = now_us();
    const std::lock_guard lock(mutex_);
    Marks& marks = marks_[request];
    if (!event.tokens.empty()) {
      marks.times_us.push_back(now);
      marks.num_tokens += std::ssize(event.tokens);
    }
    if (!event.finish_reason.empty()) {
      if (event.finish_reason == "error" || event.finish_reason == "abort")
        marks.error = event.error.empty() ? event.finish_reason : event.error;
      end(request, now);
    }
    ++num_events_;
    changed_.notify_all();
  }

  void refused(size_t request, const std::string& why) {
    const std::lock_guard lock(mutex_);
    marks_[request].error = why;
    end(request, now_us());
    changed_.notify_all();
  }

  /// Returns when fewer than `limit` of the first `sent` requests are under way.
  void wait_for_fewer(int64_t limit, int64_t sent, double timeout_s) {
    std::unique_lock lock(mutex_);
    while (sent - num_ended_ >= limit) {
      const int64_t before = num_events_;
      changed_.wait_for(lock, std::chrono::duration<double>(timeout_s),
                        [&] { return num_events_ != before || sent - num_ended_ < limit; });
      if (num_events_ == before && sent - num_ended_ >= limit) {
        fail("{} of {} requests are under way and none made a token for {:g} s", sent - num_ended_, sent, timeout_s);
      }
    }
  }

  struct Marks {
    std::vector<double> times_us;  ///< of events with tokens
    int64_t num_tokens = 0;
    double ended_us = 0;
    std::string error;
  };
  const Marks& marks(size_t request) const { return marks_[request]; }

 private:
  void end(size_t request, double now) {
    marks_[request].ended_us = now;
    ++num_ended_;
    ++num_events_;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Marks> marks_;
  int64_t num_ended_ = 0, num_events_ = 0;
};

int64_t varied(int64_t length, double ratio, Philox& random) {
  const double factor = 1 + ratio * (2 * uniform(random) - 1);
  return std::max<int64_t>(1, std::llround(static_cast<double>(length) * factor));
}

std::vector<double> sorted_of(const ServingResult& result, double (*value)(const ServedRequest&), bool several_tokens) {
  std::vector<double> values;
  for (const ServedRequest& request : result.requests) {
    if (request.error.empty() && (!several_tokens || request.output > 1)) values.push_back(value(request));
  }
  return values;
}

struct Metric {
  const char* key;
  const char* name;
  std::vector<double> values;
};

std::vector<Metric> metrics_of(const ServingResult& result) {
  std::vector<double> itl;
  for (const ServedRequest& request : result.requests) {
    if (request.error.empty()) itl.insert(itl.end(), request.itl.begin(), request.itl.end());
  }
  return {{"ttft", "time to first token",
           sorted_of(
               result, [](const ServedRequest& r) { return r.ttft; }, false)},
          {"tpot", "time per output token",
           sorted_of(
               result, [](const ServedRequest& r) { return r.tpot(); }, true)},
          {"itl", "inter-token latency", std::move(itl)},
          {"e2el", "end-to-end latency",
           sorted_of(
               result, [](const ServedRequest& r) { return r.e2el; }, false)}};
}

double deviation(const std::vector<double>& values) {
  const double middle = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - middle) * (value - middle);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

}  // namespace

void ServingOptions::check() const {
  if (num_prompts < 1 || input < 1 || output < 1) fail("requests, their input and their output must be at least 1");
  if (!(request_rate >= 0) || !std::isfinite(request_rate))
    fail("a request rate of {} per second; expected a positive number, or 0 for all at once", request_rate);
  if (!(range_ratio >= 0 && range_ratio < 1))
    fail("lengths vary by {}; expected 0 or more, and less than 1", range_ratio);
  for (const double percent : percentiles)
    if (!(percent >= 0 && percent <= 100)) fail("percentile {} is not between 0 and 100", percent);
  for (const auto& [name, ms] : goodput) {
    if (name != "ttft" && name != "tpot" && name != "e2el") fail("goodput '{}'; expected ttft, tpot or e2el", name);
    if (!(ms >= 0)) fail("goodput {}: {} ms; expected 0 or more", name, ms);
  }
}

std::map<std::string, double> ServingOptions::parse_goodput(const std::string& text) {
  std::map<std::string, double> limits;
  std::stringstream items(text);
  for (std::string item; std::getline(items, item, ',');) {
    const size_t colon = item.find(':');
    char* end = nullptr;
    const double ms = colon == std::string::npos ? 0 : std::strtod(item.c_str() + colon + 1, &end);
    if (end == nullptr || *end != '\0' || colon + 1 == item.size())
      fail("goodput '{}': '{}' is not NAME:MS, as in ttft:200,tpot:50", text, item);
    limits[item.substr(0, colon)] = ms;
  }
  return limits;
}

std::vector<double> arrival_times(const ServingOptions& options) {
  std::vector<double> times;
  Philox random(options.seed, arrivals);
  double now = 0;
  for (int64_t i = 0; i < options.num_prompts; ++i) {
    times.push_back(now);
    if (options.request_rate > 0) now -= std::log1p(-uniform(random)) / options.request_rate;
  }
  return times;
}

ServingResult bench_serving(const ServingOptions& options, GenerationService& service, int64_t vocab_size) {
  options.check();
  ServingResult result;
  result.options = options;
  Philox length(options.seed, lengths), token(options.seed, tokens);
  std::vector<GenerationRequest> requests(options.num_prompts);
  for (GenerationRequest& request : requests) {
    request.prompt.resize(varied(options.input, options.range_ratio, length));
    for (int32_t& id : request.prompt) id = static_cast<int32_t>(token.below(vocab_size));
    request.max_tokens = varied(options.output, options.range_ratio, length);
    result.requests.push_back({.input = std::ssize(request.prompt)});
  }
  const std::vector<double> arrive = arrival_times(options);
  const auto board = std::make_shared<Board>(options.num_prompts);  // events may come late where this call fails
  std::vector<double> arrived_us;
  const double begin_us = now_us();
  for (int64_t i = 0; i < options.num_prompts; ++i) {
    if (options.max_concurrency > 0) board->wait_for_fewer(options.max_concurrency, i, options.timeout_s);
    sleep_until_us(begin_us + arrive[i] * 1e6);
    arrived_us.push_back(now_us());
    try {
      service.submit(std::move(requests[i]), [board, i](const GenerationEvent& event) { board->event(i, event); });
    } catch (const std::exception& error) {  // an Error or Overloaded: the request's outcome
      board->refused(i, error.what());
    }
  }
  board->wait_for_fewer(1, options.num_prompts, options.timeout_s);
  double last_us = begin_us;
  for (int64_t i = 0; i < options.num_prompts; ++i) {
    ServedRequest& request = result.requests[i];
    const Board::Marks& marks = board->marks(i);
    request.error = marks.error;
    request.output = marks.num_tokens;
    last_us = std::max(last_us, marks.ended_us);
    if (marks.times_us.empty()) {
      if (request.error.empty()) request.error = "it ended without a token";
      continue;
    }
    request.ttft = (marks.times_us.front() - arrived_us[i]) / 1e3;
    request.e2el = (marks.times_us.back() - arrived_us[i]) / 1e3;
    for (size_t k = 1; k < marks.times_us.size(); ++k)
      request.itl.push_back((marks.times_us[k] - marks.times_us[k - 1]) / 1e3);
  }
  result.duration_s = (last_us - begin_us) / 1e6;
  return result;
}

int64_t ServingResult::completed() const {
  return std::count_if(requests.begin(), requests.end(), [](const ServedRequest& r) { return r.error.empty(); });
}

int64_t ServingResult::total_input() const {
  int64_t sum = 0;
  for (const ServedRequest& request : requests) sum += request.error.empty() ? request.input : 0;
  return sum;
}

int64_t ServingResult::total_output() const {
  int64_t sum = 0;
  for (const ServedRequest& request : requests) sum += request.error.empty() ? request.output : 0;
  return sum;
}

double ServingResult::goodput() const {
  const auto is_good = [&](const ServedRequest& request) {
    for (const auto& [name, ms] : options.goodput) {
      const double took = name == "ttft" ? request.ttft : name == "tpot" ? request.tpot() : request.e2el;
      if (took > ms) return false;
    }
    return request.error.empty();
  };
  return static_cast<double>(std::count_if(requests.begin(), requests.end(), is_good)) / duration_s;
}

nlohmann::json ServingResult::to_json() const {
  nlohmann::json json{{"backend", "farskip"},
                      {"endpoint_type", "farskip"},
                      {"model_id", model},
                      {"tokenizer_id", model},
                      {"num_prompts", options.num_prompts},
                      {"burstiness", 1.0},
                      {"duration", duration_s},
                      {"completed", completed()},
                      {"total_input_tokens", total_input()},
                      {"total_output_tokens", total_output()},
                      {"request_throughput", static_cast<double>(completed()) / duration_s},
                      {"output_throughput", static_cast<double>(total_output()) / duration_s},
                      {"total_token_throughput", static_cast<double>(total_input() + total_output()) / duration_s}};
  // vLLM writes the word where requests come at once, null where nothing bounds how many are under way.
  json["request_rate"] = options.request_rate > 0 ? nlohmann::json(options.request_rate) : nlohmann::json("inf");
  json["max_concurrency"] = options.max_concurrency > 0 ? nlohmann::json(options.max_concurrency) : nlohmann::json();
  json["request_goodput"] = options.goodput.empty() ? nlohmann::json() : nlohmann::json(goodput());
  for (const char* list : {"input_lens", "output_lens", "ttfts", "itls", "errors"})
    json[list] = nlohmann::json::array();
  for (const ServedRequest& request : requests) {
    json["input_lens"].push_back(request.input);
    json["output_lens"].push_back(request.output);
    json["ttfts"].push_back(request.ttft / 1e3);  // its lists are in seconds
    nlohmann::json itl = nlohmann::json::array();
    for (const double ms : request.itl) itl.push_back(ms / 1e3);
    json["itls"].push_back(std::move(itl));
    json["errors"].push_back(request.error);
  }
  for (const Metric& metric : metrics_of(*this)) {
    if (metric.values.empty()) continue;
    json[fmt::format("mean_{}_ms", metric.key)] = mean(metric.values);
    json[fmt::format("median_{}_ms", metric.key)] = median(metric.values);
    json[fmt::format("std_{}_ms", metric.key)] = deviation(metric.values);
    for (const double percent : options.percentiles)
      json[fmt::format("p{:g}_{}_ms", percent, metric.key)] = percentile(metric.values, percent);
  }
  return json;
}

Table ServingResult::table() const {
  Table table{{"metric", "mean", "median"}, {}, ""};
  for (const double percent : options.percentiles) table.columns.push_back(fmt::format("p{:g}", percent));
  const auto add = [&](const std::string& name, const std::string& value) {
    table.rows.push_back({name, value});
    table.rows.back().resize(table.columns.size());
  };
  add("requests completed", fmt::format("{} of {}", completed(), options.num_prompts));
  add("duration, s", fmt::format("{:.2f}", duration_s));
  add("requests a second", fmt::format("{:.2f}", static_cast<double>(completed()) / duration_s));
  if (!options.goodput.empty()) add("good requests a second", fmt::format("{:.2f}", goodput()));
  add("output tokens a second", fmt::format("{:.1f}", static_cast<double>(total_output()) / duration_s));
  add("all tokens a second", fmt::format("{:.1f}", static_cast<double>(total_input() + total_output()) / duration_s));
  table.rows.emplace_back();
  for (const Metric& metric : metrics_of(*this)) {
    if (metric.values.empty()) continue;
    std::vector<std::string> row = {fmt::format("{}, ms", metric.name), fmt::format("{:.2f}", mean(metric.values)),
                                    fmt::format("{:.2f}", median(metric.values))};
    for (const double percent : options.percentiles)
      row.push_back(fmt::format("{:.2f}", percentile(metric.values, percent)));
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace farskip
