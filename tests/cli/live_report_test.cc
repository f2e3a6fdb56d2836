// The report as someone meets it who opens it while the run goes on, and afterwards.

#include <csignal>
#include <regex>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_farskip;
using testing::RunningProgram;

class LiveReport : public testing::TinyTraining {
 protected:
  static constexpr const char* two_ranks = "connectivity=farskip layout=ep=2 --nproc 2 ";

  std::string page() const {
    std::ifstream file(folder / "report.html");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  /// Of "Running: iteration 12 of 20000"; -1 where the page does not say so.
  static int64_t iteration_of(const std::string& page) {
    const std::string before = ": iteration ";
    const size_t at = page.find(before);
    return at == page.npos ? -1 : std::stoll(page.substr(at + before.size(), 10));
  }
  /// Iterations whose point the loss curve has (few points are all drawn).
  static std::vector<int> loss_points(const std::string& page) {
    std::vector<int> result;
    const std::regex point(R"(<title>training: iteration (\d+), nats)");
    for (auto match = std::sregex_iterator(page.begin(), page.end(), point); match != std::sregex_iterator(); ++match) {
      result.push_back(std::stoi((*match)[1]));
    }
    return result;
  }
};

TEST_F(LiveReport, CanBeOpenedWhileTheRunGoesOnAndSaysThatASignalStoppedIt) {
  RunningProgram run(
      train(std::string(two_ranks) +
            "link=rate=2gbit,latency=50us train_iters=20000 log_interval=5 eval_iters=1 eval_interval=20 "
            "report_interval=0.05 save=" +
            folder / "saved" + " report=" + folder / "report.html"),
      folder / "run");
  ASSERT_TRUE(testing::wait_until(60, [&] { return iteration_of(page()) >= 40; })) << run.err();
  const std::string first = page();
  EXPECT_THAT(first, HasSubstr("Running: iteration"));
  EXPECT_THAT(first, HasSubstr("<meta http-equiv=\"refresh\""));
  EXPECT_THAT(first, HasSubstr("</html>")) << "a page under its name is whole";
  for (const char* part : {"Loss", "validation: iteration 20", "Learning rate", "Norm of the gradient", "Throughput",
                           "Busiest expert over the mean", "Expert load of the last step",
                           "Computing time of the ranks", "Communication per collective", "Timeline of a step",
                           "of communication hidden", "left</span>", "global_batch_size:"}) {
    EXPECT_THAT(first, HasSubstr(part));
  }
  for (const char* part : {"<script", "src=", "@import", "url(http", "href="}) EXPECT_THAT(first, Not(HasSubstr(part)));
  EXPECT_TRUE(testing::wait_until(30, [&] { return iteration_of(page()) > iteration_of(first); })) << "it is renewed";
  run.send(SIGTERM);
  EXPECT_EQ(run.wait(60), 0) << run.err();
  EXPECT_THAT(page(), HasSubstr("Stopped by a signal: iteration"));
  EXPECT_THAT(page(), Not(HasSubstr("http-equiv=\"refresh\"")));
  EXPECT_THAT(page(), HasSubstr("iteration of the last checkpoint"));
}

TEST_F(LiveReport, ChangesNoDigit) {
  const auto without = digits(trained(std::string(two_ranks) + "schedule=search"));
  const auto with = digits(
      trained(std::string(two_ranks) + "schedule=search report_interval=0.001 report=" + folder / "report.html"));
  EXPECT_EQ(with, without);
  EXPECT_THAT(page(), HasSubstr("Finished: iteration 8 of 8."));
  EXPECT_THAT(page(), HasSubstr("simulated above, measured below"));
  EXPECT_THAT(page(), HasSubstr("schedule search (from"));
}

TEST_F(LiveReport, AResumedRunDrawsTheWholeCurve) {
  const std::string run = std::string(two_ranks) + "save=" + folder / "saved" + " log_file=" + folder / "run.jsonl" +
                          " report=" + folder / "report.html" + " lr_decay_iters=8 auto_resume=true ";
  ASSERT_EQ(run_farskip(train(run + "train_iters=5")).status, 0);
  EXPECT_EQ(loss_points(page()), (std::vector<int>{1, 2, 3, 4, 5}));
  const auto resumed = run_farskip(train(run + "train_iters=8"));
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_EQ(loss_points(page()), (std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_THAT(page(), HasSubstr("Finished: iteration 8 of 8"));
  // Without a log there is nothing to read back.
  ASSERT_EQ(run_farskip(train(run + "train_iters=9 log_file=")).status, 0);
  EXPECT_EQ(loss_points(page()), (std::vector<int>{9}));
}

// A window of one step and no patience: a step whose loss is above the one before asks for a roll-back.
TEST_F(LiveReport, SaysWhyARunFailedAndWhatTheGuardDid) {
  const std::string run = std::string(two_ranks) + "train_iters=30 loss_spike_factor=1.0001 guard_window=1 " +
                          "guard_patience=1 report=" + folder / "report.html" + " ";
  EXPECT_EQ(run_farskip(train(run)).status, 1);
  EXPECT_THAT(page(), HasSubstr("Failed: iteration"));
  EXPECT_THAT(page(), HasSubstr("there is no checkpoint to go back to"));
  EXPECT_THAT(page(), Not(HasSubstr("http-equiv=\"refresh\"")));

  trained(run + "save_interval=1 save=" + folder / "saved");
  EXPECT_THAT(page(), HasSubstr("weights and moments are again those of iteration"));
  EXPECT_THAT(page(), HasSubstr("changed nothing: "));
  EXPECT_THAT(page(), HasSubstr("Finished: iteration 30 of 30"));
}

TEST_F(LiveReport, AFullDiskIsToldAndTrainingGoesOn) {
  const auto full = digits(trained(std::string(two_ranks) + "report_interval=0.001 report=/dev/full"));
  EXPECT_EQ(full.size(), 8u);
  const std::string warning = "report=/dev/full: cannot write";
  EXPECT_THAT(last.err, HasSubstr(warning));
  EXPECT_EQ(last.err.find(warning, last.err.find(warning) + 1), std::string::npos) << "told once\n" << last.err;
  const auto refused = run_farskip(train("report=" + folder.string()));
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("it is a folder"));
}

// Each rank says what it reads: its own experts, half of them here, and everything that all ranks have.
TEST_F(LiveReport, LoadingTellsWhatItCost) {
  trained("train_iters=1 export=" + folder / "out");
  const auto loaded = run_farskip(train(std::string(two_ranks) + "train_iters=1 connectivity= load=" + folder / "out"));
  ASSERT_EQ(loaded.status, 0) << loaded.err;
  const std::regex line(
      R"(out: (\d+\.\d) KiB of (\d+\.\d) KiB read in .*, .*/s; peak resident memory \d+\.\d MiB; of 2 ranks at most)");
  std::smatch match;
  ASSERT_TRUE(std::regex_search(loaded.err, match, line)) << loaded.err;
  EXPECT_LT(std::stod(match[1]), std::stod(match[2]));
}

}  // namespace
}  // namespace farskip
