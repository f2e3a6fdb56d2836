// Ranks that die, stand still or are told to go: who survives ends soon and says why, and no checkpoint is lost.

#include <fmt/format.h>
#include <signal.h>

#include <chrono>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using testing::run_farskip;
using testing::RunningProgram;
using testing::wait_until;
namespace fs = std::filesystem;

constexpr double kTimeout = 3;  ///< seconds, of the collectives
constexpr double kSlack = 4;    ///< seconds beyond the promised two, for a busy machine

class TrainFailures : public testing::TinyTraining {
 protected:
  std::string endless(const std::string& settings) const {
    return train(fmt::format("connectivity=farskip layout=ep=2 train_iters=5000 timeout={} log_file={} {}", kTimeout,
                             log_, settings));
  }

  /// Two ranks as torchrun would start them, in mid training.
  std::vector<std::unique_ptr<RunningProgram>> start_ranks(const std::string& settings = "") {
    fs::remove(log_);
    const std::string port = std::to_string(20000 + (getpid() + 100 * num_runs_++) % 10000);
    std::vector<std::unique_ptr<RunningProgram>> ranks;
    for (const std::string rank : {"0", "1"}) {
      ranks.push_back(std::make_unique<RunningProgram>(endless(settings), folder / ("rank" + rank),
                                                       RunningProgram::Environment{{"RANK", rank},
                                                                                   {"WORLD_SIZE", "2"},
                                                                                   {"LOCAL_RANK", rank},
                                                                                   {"LOCAL_WORLD_SIZE", "2"},
                                                                                   {"MASTER_ADDR", "127.0.0.1"},
                                                                                   {"MASTER_PORT", port}}));
    }
    EXPECT_TRUE(training()) << ranks[0]->err() << ranks[1]->err();
    return ranks;
  }

  bool training() {
    return wait_until(60, [&] { return fs::exists(log_) && fs::file_size(log_) > 500; });
  }

  const std::string log_ = folder / "log.jsonl";
  int num_runs_ = 0;
};

TEST_F(TrainFailures, TheSurvivorEndsInTimeAndNamesRankAndCollective) {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    for (const int victim : {0, 1}) {
      auto ranks = start_ranks();
      auto& survivor = *ranks[1 - victim];
      ranks[victim]->send(signal);
      const auto status = survivor.wait(kTimeout + 2 + kSlack);
      ASSERT_TRUE(status) << "rank " << 1 - victim << " still runs after signal " << signal;
      EXPECT_EQ(*status, 1);
      EXPECT_THAT(survivor.err(), HasSubstr(fmt::format("rank {} is gone", victim)));
      EXPECT_THAT(survivor.err(), ::testing::ContainsRegex("farskip: error: collective '[a-z0-9_.]+' on '[a-z_]+'"));
    }
  }
}

TEST_F(TrainFailures, TheLauncherLetsSurvivorsSpeak) {
  RunningProgram launcher(endless("transport=gloo --nproc 2"), folder / "launcher");
  ASSERT_TRUE(training()) << launcher.err();
  const auto children = launcher.children();
  ASSERT_EQ(children.size(), 2u);
  kill(children[1], SIGKILL);
  EXPECT_EQ(launcher.wait(kTimeout + 2 + kSlack), 128 + SIGKILL);
  EXPECT_THAT(launcher.err(), HasSubstr(fmt::format("rank 1 of 2 (process {}) was killed by signal 9", children[1])));
  EXPECT_THAT(launcher.err(), HasSubstr("rank 1 is gone"));
}

TEST_F(TrainFailures, SignalsToTheLauncherEndAllRanks) {
  for (const int signal : {SIGTERM, SIGINT}) {
    fs::remove(log_);
    RunningProgram launcher(endless("transport=gloo --nproc 2"), folder / "launcher");
    ASSERT_TRUE(training()) << launcher.err();
    const auto children = launcher.children();
    ASSERT_EQ(children.size(), 2u);
    launcher.send(signal);
    EXPECT_EQ(launcher.wait(5 + kSlack), 128 + signal) << launcher.err();
    for (const pid_t child : children) EXPECT_NE(kill(child, 0), 0) << child << " still runs after signal " << signal;
  }
}

TEST_F(TrainFailures, ADeathWhileSavingLeavesTheCheckpointsBefore) {
  const std::string out = folder / "out";
  auto partial = [&] {
    std::error_code gone;
    for (const auto& entry : fs::directory_iterator(out, gone)) {
      if (entry.path().extension() == ".partial") return entry.path().string();
    }
    return std::string();
  };
  auto ranks = start_ranks("save_interval=1 save=" + out);
  ASSERT_TRUE(wait_until(60, [&] { return fs::exists(out + "/latest_checkpointed_iteration.txt"); }));
  // Stopped with a half-written folder beside complete ones, then killed.
  ASSERT_TRUE(wait_until(60, [&] {
    if (partial().empty()) return false;
    ranks[0]->send(SIGSTOP);
    testing::sleep_ms(20);
    if (!partial().empty()) return true;
    ranks[0]->send(SIGCONT);
    return false;
  })) << "no save was met in mid air";
  const std::string latest = read_file(out + "/latest_checkpointed_iteration.txt");
  ranks[0]->send(SIGKILL);
  EXPECT_EQ(ranks[0]->wait(5), 128 + SIGKILL);
  ASSERT_EQ(ranks[1]->wait(kTimeout + 2 + kSlack), 1) << ranks[1]->err();
  EXPECT_THAT(ranks[1]->err(), HasSubstr("rank 0 is gone"));

  EXPECT_EQ(read_file(out + "/latest_checkpointed_iteration.txt"), latest);
  const auto continued = run_farskip("generate " + out + " --prompt The --max-tokens 4");
  EXPECT_EQ(continued.status, 0) << continued.err;
  // The next run goes on from it and tidies up.
  const int64_t next = std::stol(latest) + 1;
  const auto more =
      run_farskip(train(fmt::format("connectivity=farskip train_iters={} save={} auto_resume=true", next, out)));
  EXPECT_EQ(more.status, 0) << more.err;
  EXPECT_EQ(read_file(out + "/latest_checkpointed_iteration.txt"), std::to_string(next) + "\n");
  EXPECT_EQ(partial(), "");
}

}  // namespace
}  // namespace farskip
