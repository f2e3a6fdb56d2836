// /metrics under vLLM's names, in Prometheus' text format.

#include <regex>

#include "tests/serve/small_server.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

class MetricsPage : public testing::SmallServer {
 protected:
  std::string page() {
    const auto answer = testing::get(port(), "/metrics");
    EXPECT_EQ(answer.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    return answer.body;
  }
  /// Of the line with this name and more labels.
  static double value(const std::string& page, const std::string& name, const std::string& labels = "") {
    std::smatch found;
    const std::regex line("(?:^|\n)" + name + "\\{engine=\"0\",model_name=\"bytes\"" + labels + "\\} (\\S+)\n");
    EXPECT_TRUE(std::regex_search(page, found, line)) << name << labels;
    return found.empty() ? -1 : std::stod(found[1]);
  }
};

TEST_F(MetricsPage, CountsAndTimes) {
  ASSERT_EQ(complete({{"prompt", "abc"}, {"max_tokens", 4}, {"n", 2}}).status, 200);
  ASSERT_EQ(complete({{"prompt", "abcd"}, {"max_tokens", 100}}).status, 200);
  ASSERT_EQ(complete({{"prompt", "a"}, {"max_tokens", 100}, {"stop", "o,"}}).status, 200);
  EXPECT_EQ(complete({{"prompt", "a"}, {"n", 0}}).status, 400);
  service.fail_after(1, "lost");
  EXPECT_EQ(complete({{"prompt", "a"}}).status, 500);
  const std::string text = page();
  EXPECT_EQ(value(text, "vllm:num_requests_running"), 0);
  EXPECT_EQ(value(text, "vllm:num_requests_waiting"), 0);
  EXPECT_EQ(value(text, "vllm:kv_cache_usage_perc"), 0.25);
  EXPECT_EQ(value(text, "vllm:prompt_tokens_total"), 3 + 3 + 4 + 1 + 1);
  EXPECT_GE(value(text, "vllm:generation_tokens_total"), 4 + 4 + 13 + 6 + 1);
  EXPECT_EQ(value(text, "vllm:request_success_total", ",finished_reason=\"length\""), 2);
  EXPECT_EQ(value(text, "vllm:request_success_total", ",finished_reason=\"stop\""), 2);
  EXPECT_EQ(value(text, "vllm:request_success_total", ",finished_reason=\"error\""), 1);
  EXPECT_EQ(value(text, "vllm:request_success_total", ",finished_reason=\"abort\""), 0);
  EXPECT_EQ(value(text, "vllm:time_to_first_token_seconds_count"), 5);
  EXPECT_EQ(value(text, "vllm:time_to_first_token_seconds_bucket", ",le=\"\\+Inf\""), 5);
  EXPECT_EQ(value(text, "vllm:inter_token_latency_seconds_count"), 3 + 3 + 12 + 5);
  EXPECT_EQ(value(text, "vllm:time_per_output_token_seconds_count"), 3 + 3 + 12 + 5);
  EXPECT_EQ(value(text, "vllm:request_time_per_output_token_seconds_count"), 4);
  EXPECT_EQ(value(text, "vllm:e2e_request_latency_seconds_count"), 4);
  EXPECT_EQ(value(text, "vllm:request_prompt_tokens_sum"), 3 + 3 + 4 + 1);
  EXPECT_EQ(value(text, "vllm:request_generation_tokens_bucket", ",le=\"5\""), 2);
  EXPECT_EQ(value(text, "vllm:request_generation_tokens_bucket", ",le=\"10\""), 3);
  EXPECT_THAT(text, HasSubstr("http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"400\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"200\"} 3\n"));
}

TEST_F(MetricsPage, IsWellFormed) {
  complete({{"prompt", "abc"}});
  testing::get(port(), "/\"quoted\\path");
  testing::Client broken(port());
  broken.send("\xf8\"{ /metrics HTTP/1.1\r\n\r\n");
  EXPECT_EQ(broken.read().status, 400);
  std::istringstream lines(page());
  const std::regex comment(R"(# (HELP|TYPE) [a-z_:0-9]+ \S.*)");
  const std::regex sample(R"re([a-z_:0-9]+\{([a-z_]+="[^"\\]*",?)+\} [0-9.e+-]+)re");
  std::string type;
  for (std::string line; std::getline(lines, line);) {
    const bool is_comment = line.starts_with("#");
    EXPECT_TRUE(std::regex_match(line, is_comment ? comment : sample)) << line;
  }
}

}  // namespace
}  // namespace farskip
