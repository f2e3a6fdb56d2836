// farskip bench ttft as a user meets it. What it measures is not tested: that it runs, tells, and refuses.

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/run_program.h"
#include "tests/infer/tiny_config.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::run_farskip;
using testing::with_libtorch;
using testing::write_tiny_config;

std::string read(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(Ttft, PrintsATableAndWritesJsonAndHtml) {
  if (!with_libtorch()) GTEST_SKIP() << "a build without libtorch has no farskip bench";
  const std::string base = ::testing::TempDir() + "/farskip_ttft_" + std::to_string(getpid());
  const auto result = run_farskip("bench ttft " + write_tiny_config() +
                                  " --batch 2 --input 16 --output 2 --rounds 6 --link "
                                  "rate=2gbit,latency=20us --modes standard-blocking,farskip-blocking,farskip --json " +
                                  base + ".json --html " + base + ".html");
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("layout ep=1,dp=1,tp=2, 2 ranks"), HasSubstr("Checked before anything was timed"),
                    HasSubstr("have the bits of the blocking"), HasSubstr("first token"), HasSubstr("reduce_routed"),
                    HasSubstr("farskip: no order can hide 2 of its 6 collectives")));
  const auto json = nlohmann::json::parse(read(base + ".json"));
  EXPECT_EQ(json["modes"].size(), 3);
  EXPECT_EQ(json["link"], "rate=2000mbit,latency=20us");
  EXPECT_THAT(read(base + ".html"), AllOf(HasSubstr("<svg"), HasSubstr("farskip-blocking")));
  std::filesystem::remove(base + ".json");
  std::filesystem::remove(base + ".html");
}

TEST(Ttft, RefusesWhatCannotBe) {
  if (!with_libtorch()) GTEST_SKIP() << "a build without libtorch has no farskip bench";
  const auto error_of = [](const std::string& arguments) {
    const auto result = run_farskip("bench ttft " + arguments);
    EXPECT_NE(result.status, 0) << arguments;
    return result.err;
  };
  EXPECT_THAT(error_of("small-deepseek-v9"), HasSubstr("did you mean small-deepseek-v"));
  EXPECT_THAT(error_of("small-deepseek-v3 --layout tp=4"), HasSubstr("needs 4 ranks"));
  EXPECT_THAT(error_of("small-llama-4-scout --layout tp=4 --nproc 4"), HasSubstr("cannot be divided over tp=4"));
  EXPECT_THAT(error_of("small-deepseek-v3 --modes farskip,fast"), HasSubstr("mode 'fast'"));
  EXPECT_THAT(error_of("small-deepseek-v3 --routing skewed=9"), HasSubstr("at most 2 times the mean"));
  EXPECT_THAT(error_of("small-deepseek-v3 --link share=2"), HasSubstr("between 0 and 1"));
  EXPECT_THAT(error_of("small-deepseek-v3 --input 20000"), HasSubstr("10240 positions"));
  EXPECT_THAT(error_of("small-deepseek-v3 --batch 0"), HasSubstr("--batch"));
}

TEST(Serving, ServesEveryRequestAndWritesVllmsKeys) {
  if (!with_libtorch()) GTEST_SKIP() << "a build without libtorch has no farskip bench";
  const std::string json_path = ::testing::TempDir() + "/farskip_serving_" + std::to_string(getpid()) + ".json";
  const auto result = run_farskip("bench serving " + write_tiny_config() +
                                  " --nproc 2 --num-prompts 5 --random-input-len 10 --random-output-len 3"
                                  " --goodput ttft:100000 --save-result " +
                                  json_path);
  ASSERT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("5 of 5"), HasSubstr("time to first token"), HasSubstr("p99")));
  const auto json = nlohmann::json::parse(read(json_path));
  EXPECT_EQ(json["completed"], 5);
  EXPECT_EQ(json["total_output_tokens"], 15);
  EXPECT_EQ(json["ttfts"].size(), 5);
  std::filesystem::remove(json_path);
  const auto refused = run_farskip("bench serving small-deepseek-v3 --request-rate often");
  EXPECT_NE(refused.status, 0);
  EXPECT_THAT(refused.err, HasSubstr("--request-rate often"));
}

}  // namespace
}  // namespace farskip
