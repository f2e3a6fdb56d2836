// bench serving against services that are made up: who is asked what, and what is made of the answers.

#include "infer/bench_serving.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cmath>
#include <deque>
#include <mutex>
#include <thread>

#include "tests/base/error_of.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

/// Makes one token of each request in turn, on a thread of its own.
class FakeService : public GenerationService {
 public:
  explicit FakeService(size_t most_waiting = 1000) : most_waiting_(most_waiting), thread_([this] { run(); }) {}
  ~FakeService() override {
    stop_ = true;
    thread_.join();
  }

  uint64_t submit(GenerationRequest request, OnEvent on_event) override {
    if (request.prompt.size() > 1000) throw Error("a prompt of more than 1000 tokens");
    const std::lock_guard lock(mutex_);
    if (running_.size() >= most_waiting_) throw Overloaded("too many wait");
    most_ = std::max(most_, running_.size() + 1);
    requests_.push_back(request);
    running_.push_back({request.max_tokens, std::move(on_event)});
    return requests_.size();
  }
  void cancel(uint64_t) override {}
  EngineStats stats() const override { return {}; }
  int64_t max_positions() const override { return 1000; }

  std::vector<GenerationRequest> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  size_t most_at_once() {
    const std::lock_guard lock(mutex_);
    return most_;
  }
  std::atomic<bool> silent = false;
  std::string error;  ///< with which requests end after their first token

 private:
  struct Running {
    int64_t left;
    OnEvent on_event;
  };
  void run() {
    while (!stop_) {
      std::unique_lock lock(mutex_);
      if (running_.empty() || silent) {
        lock.unlock();
        std::this_thread::yield();
        continue;
      }
      Running next = std::move(running_.front());
      running_.pop_front();
      GenerationEvent event;
      event.tokens = {7};
      if (--next.left == 0) event.finish_reason = "length";
      if (!error.empty()) event.finish_reason = "error", event.error = error;
      if (event.finish_reason.empty()) running_.push_back(next);
      lock.unlock();
      next.on_event(event);
    }
  }

  size_t most_waiting_, most_ = 0;
  std::mutex mutex_;
  std::vector<GenerationRequest> requests_;
  std::deque<Running> running_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST(BenchServing, CountsWhatWasMade) {
  FakeService service;
  ServingOptions options;
  options.num_prompts = 20;
  options.input = 30;
  options.output = 5;
  options.goodput = {{"ttft", 1e9}};
  options.percentiles = {50, 90, 99};
  ServingResult result = bench_serving(options, service, 50);
  EXPECT_EQ(result.completed(), 20);
  EXPECT_EQ(result.total_input(), 600);
  EXPECT_EQ(result.total_output(), 100);
  for (const ServedRequest& request : result.requests) {
    EXPECT_EQ(request.itl.size(), 4);
    double sum = request.ttft;
    for (const double ms : request.itl) sum += ms;
    EXPECT_NEAR(sum, request.e2el, 1e-6);
  }
  for (const GenerationRequest& request : service.requests())
    EXPECT_THAT(request.prompt, ::testing::Each(AllOf(::testing::Ge(0), ::testing::Lt(50))));
  EXPECT_NEAR(result.goodput(), 20 / result.duration_s, 1e-9);
  result.options.goodput["e2el"] = 0;
  EXPECT_EQ(result.goodput(), 0);

  const nlohmann::json json = result.to_json();
  for (const char* key : {"model_id",
                          "num_prompts",
                          "request_rate",
                          "burstiness",
                          "max_concurrency",
                          "duration",
                          "completed",
                          "total_input_tokens",
                          "total_output_tokens",
                          "request_throughput",
                          "request_goodput",
                          "output_throughput",
                          "total_token_throughput",
                          "input_lens",
                          "output_lens",
                          "ttfts",
                          "itls",
                          "errors",
                          "mean_ttft_ms",
                          "median_ttft_ms",
                          "std_ttft_ms",
                          "p90_ttft_ms",
                          "p99_ttft_ms",
                          "mean_tpot_ms",
                          "p99_tpot_ms",
                          "mean_itl_ms",
                          "p50_itl_ms",
                          "median_e2el_ms",
                          "p99_e2el_ms"})
    EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_EQ(json["output_lens"].size(), 20);
  EXPECT_EQ(json["itls"][3].size(), 4);
  EXPECT_EQ(json["p50_itl_ms"], json["median_itl_ms"]);
}

TEST(BenchServing, FiguresOfKnownTimes) {
  ServingResult result;
  result.options.num_prompts = 3;
  result.options.percentiles = {90};
  result.options.goodput = {{"ttft", 15}, {"tpot", 5}};
  result.duration_s = 2;
  result.requests = {{.input = 10, .output = 5, .ttft = 10, .itl = {4, 4, 4, 4}, .e2el = 26},
                     {.input = 10, .output = 5, .ttft = 20, .itl = {2, 2, 2, 2}, .e2el = 28},
                     {.input = 10, .output = 1, .ttft = 5, .e2el = 5, .error = "lost"}};
  const nlohmann::json json = result.to_json();
  EXPECT_EQ(json["completed"], 2);
  EXPECT_DOUBLE_EQ(json["request_throughput"].get<double>(), 1);
  EXPECT_DOUBLE_EQ(json["output_throughput"].get<double>(), 5);
  EXPECT_DOUBLE_EQ(json["total_token_throughput"].get<double>(), 15);
  EXPECT_DOUBLE_EQ(json["request_goodput"].get<double>(), 0.5) << "the second one waits too long, the third is lost";
  EXPECT_DOUBLE_EQ(json["mean_ttft_ms"].get<double>(), 15);
  EXPECT_DOUBLE_EQ(json["std_ttft_ms"].get<double>(), 5);
  EXPECT_DOUBLE_EQ(json["p90_ttft_ms"].get<double>(), 19);
  EXPECT_DOUBLE_EQ(json["mean_tpot_ms"].get<double>(), 3);
  EXPECT_DOUBLE_EQ(json["median_itl_ms"].get<double>(), 3);
  EXPECT_DOUBLE_EQ(json["mean_e2el_ms"].get<double>(), 27);
}

TEST(BenchServing, RefusedAndFailedRequestsAreOutcomes) {
  {
    FakeService service(3);
    service.silent = true;  // until all have been sent
    ServingOptions options;
    options.num_prompts = 5;
    options.output = 2;
    options.timeout_s = 20;
    std::thread waker([&] {
      while (service.requests().size() < 3) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      service.silent = false;
    });
    const ServingResult result = bench_serving(options, service, 50);
    waker.join();
    EXPECT_GE(result.completed(), 3);
    EXPECT_EQ(result.to_json()["errors"].size(), 5);
  }
  FakeService service;
  service.error = "a rank was lost";
  ServingOptions options;
  options.num_prompts = 2;
  const ServingResult result = bench_serving(options, service, 50);
  EXPECT_EQ(result.completed(), 0);
  EXPECT_EQ(result.requests[0].error, "a rank was lost");
  EXPECT_FALSE(result.to_json().contains("mean_ttft_ms"));
}

TEST(BenchServing, ConcurrencyIsBounded) {
  FakeService service;
  ServingOptions options;
  options.num_prompts = 30;
  options.max_concurrency = 4;
  EXPECT_EQ(bench_serving(options, service, 50).completed(), 30);
  EXPECT_LE(service.most_at_once(), 4);
}

TEST(BenchServing, ASilentServiceIsAnError) {
  FakeService service;
  service.silent = true;
  ServingOptions options;
  options.num_prompts = 2;
  options.timeout_s = 0.05;
  EXPECT_THAT(error_of([&] { bench_serving(options, service, 50); }), HasSubstr("2 of 2 requests are under way"));
}

TEST(BenchServing, ArrivalsArePoisson) {
  ServingOptions options;
  options.num_prompts = 20000;
  EXPECT_THAT(arrival_times(options), ::testing::Each(0)) << "all at once";
  options.request_rate = 8;
  const std::vector<double> times = arrival_times(options);
  EXPECT_EQ(times, arrival_times(options)) << "a function of the seed";
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  EXPECT_NEAR(times.back() / 20000, 1.0 / 8, 0.003);
  int64_t late = 0;  // gaps beyond the mean: 1/e of an exponential distribution's
  for (size_t i = 1; i < times.size(); ++i) late += times[i] - times[i - 1] > 1.0 / 8;
  EXPECT_NEAR(static_cast<double>(late) / 20000, std::exp(-1), 0.015);
}

TEST(BenchServing, WrongOptionsAreNamed) {
  const auto error_with = [](auto&& change) {
    ServingOptions options;
    change(options);
    return error_of([&] { options.check(); });
  };
  EXPECT_THAT(error_with([](auto& o) { o.num_prompts = 0; }), HasSubstr("at least 1"));
  EXPECT_THAT(error_with([](auto& o) { o.request_rate = -1; }), HasSubstr("-1"));
  EXPECT_THAT(error_with([](auto& o) { o.range_ratio = 1; }), HasSubstr("less than 1"));
  EXPECT_THAT(error_with([](auto& o) { o.goodput["speed"] = 1; }), HasSubstr("goodput 'speed'"));
  EXPECT_EQ(ServingOptions::parse_goodput("ttft:200,tpot:50").at("tpot"), 50);
  EXPECT_THAT(error_of([] { ServingOptions::parse_goodput("ttft"); }), HasSubstr("NAME:MS"));
  EXPECT_THAT(error_of([] { ServingOptions::parse_goodput("ttft:fast"); }), HasSubstr("'ttft:fast'"));
}

}  // namespace
}  // namespace farskip
