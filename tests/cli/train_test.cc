// farskip train as a user meets it: from a text to a model that continues it, the same digits for every order and
// launch, and bad input.

#include <fmt/format.h>

#include <cmath>
#include <regex>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using testing::run_farskip;
using testing::RunningProgram;
using Train = testing::TinyTraining;

TEST_F(Train, TextBecomesAModelThatContinuesIt) {
  EXPECT_THAT(prepared.out, HasSubstr("data_text_document.bin"));
  const std::string model = folder / "out";
  const std::string log =
      trained("connectivity=farskip layout=ep=2 --nproc 2 train_iters=24 log_interval=8 eval_iters=1 export=" + model);

  std::istringstream lines(last.out);
  const std::regex format(
      R"( iteration +(\d+)/ +24 \| consumed samples: +(\d+) \| elapsed time per iteration \(ms\): \d+\.\d \| )"
      R"(tokens per second: \d+ \| learning rate: \d\.\d{6}E[-+]\d\d \| global batch size: +8 \| )"
      R"(lm loss: \d\.\d{6}E[-+]\d\d \| grad norm: \d+\.\d{3} \| time left: .+ \|)");
  int printed = 0;
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    ASSERT_TRUE(std::regex_match(line, match, format)) << line;
    EXPECT_EQ(std::stoi(match[1]), 8 * ++printed);
    EXPECT_EQ(std::stoi(match[2]), 64 * printed);
  }
  EXPECT_EQ(printed, 3);

  const auto logged = steps(log);
  ASSERT_EQ(logged.size(), 24u);
  for (size_t i = 0; i < logged.size(); ++i) {
    EXPECT_EQ(logged[i]["iteration"], i + 1);
    EXPECT_EQ(logged[i]["consumed_samples"], 8 * (i + 1));
    EXPECT_GT(logged[i]["step_ms"].get<double>(), 0);
    EXPECT_GE(logged[i]["learning_rate"].get<double>(), 0);
    EXPECT_GT(logged[i]["load_balancing_loss"].get<double>(), 0);
  }
  EXPECT_NEAR(losses(log).front(), std::log(320), 0.2) << "an untrained model guesses evenly";
  EXPECT_LT(losses(log).back(), losses(log).front() - 2);
  EXPECT_THAT(read_file(log), HasSubstr("\"validation_loss\""));

  const auto config = nlohmann::json::parse(read_file(model + "/config.json"));
  EXPECT_EQ(config["farskip"], true);
  EXPECT_EQ(config["farskip_start_idx"], 0);
  EXPECT_EQ(config["attn_only_farskip"], false);
  EXPECT_EQ(config["mlp_only_farskip"], false);
  EXPECT_EQ(config["hidden_size"], 32);

  const auto continued = run_farskip("generate " + model + " --prompt 'The quick' --max-tokens 12");
  EXPECT_EQ(continued.status, 0) << continued.err;
  EXPECT_EQ(continued.out.rfind("The quick", 0), 0u) << continued.out;
  EXPECT_GT(continued.out.size(), std::string("The quick\n").size());

  // Training goes on where it ended, with the connectivity of the weights and no other.
  const std::string more = trained("train_iters=2 load=" + model);
  EXPECT_LT(losses(more).front(), losses(log).back() + 0.5);
  EXPECT_THAT(last.err, HasSubstr("connectivity farskip"));
  const auto refused = run_farskip(train("load=" + model + " connectivity=standard"));
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr(model + ": the checkpoint's connectivity is farskip, the recipe says standard"));
}

TEST_F(Train, EveryScheduleGivesTheSameDigits) {
  const std::string run = "connectivity=farskip layout=ep=2 --nproc 2 ";
  const auto reference = digits(trained(run + "schedule=reference"));
  ASSERT_EQ(reference.size(), 8u);
  for (const char* schedule : {"paper", "async", "search", "two-batch", "1f1b"}) {
    EXPECT_EQ(digits(trained(run + "schedule=" + schedule)), reference) << schedule;
    if (schedule == std::string("search")) {
      EXPECT_THAT(last.err, HasSubstr("schedule: search (from"));
    }
  }
  EXPECT_NE(digits(trained("connectivity=standard layout=ep=2 --nproc 2")), reference)
      << "another model must show in the digits";
}

/// Two processes with a launcher's variables; each writes its own log, of which rank 0's is kept.
std::vector<RunningProgram::Environment> launch(const std::string& rank, const std::string& size,
                                                const std::string& local_rank, const std::string& port) {
  std::vector<RunningProgram::Environment> ranks;
  for (const char* r : {"0", "1"}) {
    ranks.push_back({{rank, r}, {size, "2"}, {local_rank, r}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", port}});
  }
  return ranks;
}

TEST_F(Train, EveryLaunchGivesTheSameDigits) {
  const std::string run = "connectivity=farskip layout=ep=2 timeout=60 ";
  const auto threads = digits(trained(run + "--nproc 2"));
  ASSERT_EQ(threads.size(), 8u);
  EXPECT_EQ(digits(trained(run + "transport=gloo --nproc 2")), threads);

  const std::string port = std::to_string(20000 + getpid() % 10000);
  const std::pair<const char*, std::vector<RunningProgram::Environment>> launchers[] = {
      {"torchrun", launch("RANK", "WORLD_SIZE", "LOCAL_RANK", port)},
      {"mpirun", launch("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", port)}};
  for (const auto& [name, environments] : launchers) {
    const std::string log = folder / (name + std::string(".jsonl"));
    RunningProgram first(train(run + " log_file=" + log), folder / "first", environments[0]);
    RunningProgram second(train(run + " log_file=" + log), folder / "second", environments[1]);
    ASSERT_EQ(first.wait(120), 0) << name << "\n" << first.err();
    ASSERT_EQ(second.wait(20), 0) << name << "\n" << second.err();
    EXPECT_EQ(digits(log), threads) << name;
    EXPECT_EQ(second.out(), "") << "rank 0 speaks for all";
  }
  const auto refused = run_farskip(train(run + "transport=nonsense --nproc 2"));
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("nonsense"));
}

TEST_F(Train, OneAndTwoRanksAgree) {
  const auto one = losses(trained("connectivity=farskip"));
  ASSERT_EQ(one.size(), 8u);
  for (const char* layout : {"ep=2", "dp=2"}) {
    const auto two = losses(trained(fmt::format("connectivity=farskip --nproc 2 layout={}", layout)));
    ASSERT_EQ(two.size(), one.size());
    for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(two[i], one[i], 1e-4) << layout << " step " << i;
  }
}

TEST_F(Train, ADryRunStartsNothing) {
  const std::string log = folder / "dry.jsonl";
  const auto run = run_farskip(train("--dry-run --nproc 2 layout=ep=2 connectivity=farskip log_file=" + log));
  ASSERT_EQ(run.status, 0) << run.err;
  for (const char* part : {"memory of a rank", "moments", "at the peak, in mb", "hideable", "total"})
    EXPECT_THAT(run.out, HasSubstr(part));
  EXPECT_FALSE(std::filesystem::exists(log));
  EXPECT_EQ(run_farskip(train("--dry-run --machine abacus")).status, 1);
  EXPECT_EQ(run_farskip(train("--dry-run --nproc 64 layout=ep=4 global_batch_size=128")).status, 0)
      << "more ranks than this machine has processors";
}

TEST_F(Train, BadInputIsNamed) {
  auto both = testing::tiny_model();
  for (const char* key : {"farskip", "attn_only_farskip", "mlp_only_farskip"}) both[key] = true;
  write_model("both", both);
  struct Case {
    std::string settings;
    std::vector<std::string> parts;
  };
  const std::string file = folder / "text.txt";
  const Case cases[] = {
      {"global_batch_szie=4", {"global_batch_szie", "did you mean \"global_batch_size\"?"}},
      {"train_iters=many", {"train_iters", "many"}},
      {"data_path=", {"data_path is not set", "farskip prepare"}},
      {"data_path=" + folder / "absent", {folder / "absent.idx"}},
      {"seq_length=128 split=1,9999,0", {"data_text_document: the train part has", "129", "seq_length=128"}},
      {"connectivity=farskpi", {"connectivity 'farskpi' is unknown", "attn-only"}},
      {"connectivity=last=9", {"last=9", "3"}},
      {"model=" + folder / "both", {"attn_only_farskip and mlp_only_farskip are both true"}},
      {"model=" + folder / "absent", {folder / "absent"}},
      {"load=" + folder / "absent", {folder / "absent"}},
      {"layout=ep=3 global_batch_size=6 --nproc 3", {"4 experts cannot be divided", "3"}},
      {"layout=ep=2", {"1 ranks cannot be divided", "2"}},
      {"layout=ep=2,dp=2 --nproc 2", {"layout ep=2,dp=2 is for 4 ranks, but 2 were started"}},
      {"layout=ep=two", {"layout = ep=two"}},
      {"global_batch_size=6 --nproc 2", {"global_batch_size = 6 is not a multiple of"}},
      {"export=" + file + " train_iters=1", {file, "is not a folder"}},
      {"export=/proc/none/out train_iters=1", {"/proc/none"}},
      {"save=" + file + " train_iters=1", {file, "cannot create the folder"}},
      {"save=/proc/none/out train_iters=1", {"/proc/none"}},
      {"log_file=/proc/none", {"log_file=/proc/none"}},
      {"link=fast", {"link 'fast'", "rate=2gbit,latency=50us"}},
      {"link=rate=2parsec", {"link 'rate=2parsec'", "gbit"}},
      {"schedule=papre", {"schedule 'papre' is neither a name nor a readable file"}},
  };
  for (const auto& [settings, parts] : cases) {
    const auto result = run_farskip(train(settings));
    EXPECT_EQ(result.status, 1) << settings << "\n" << result.err;
    EXPECT_THAT(result.err, HasSubstr("farskip: error: ")) << settings;
    for (const auto& part : parts) EXPECT_THAT(result.err, HasSubstr(part)) << settings;
    EXPECT_EQ(result.err.find("not foreseen"), std::string::npos) << result.err;
  }
  EXPECT_EQ(run_farskip("train " + folder / "absent.yaml").status, 1);
  EXPECT_EQ(run_farskip("train").status, 2);
  EXPECT_EQ(run_farskip(train("--nproc 0")).status, 2);
  EXPECT_THAT(run_farskip("generate " + folder / "absent --prompt x").err, HasSubstr(folder / "absent"));
}

}  // namespace
}  // namespace farskip
