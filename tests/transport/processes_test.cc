// Ranks as real processes over Gloo: the launcher, equal bits, and what survivors say when a rank is killed or stopped.
// The test program runs itself again as the ranks: Rank.DISABLED_Body is what they execute.

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "ranks.h"
#include "transport/clock.h"
#include "transport/spawn.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::noise;

constexpr double kTimeoutS = 3;

std::string read_text(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// All that a few collectives give on one rank, as bytes.
std::string bits_of(World& world) {
  const auto group = world.all();
  const int r = world.rank();
  std::string bytes;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    std::vector<int64_t> send(world.size()), recv(world.size());
    int64_t rows = 0;
    for (int p = 0; p < world.size(); ++p) {
      rows += send[p] = (r + 2 * p) % 3;
      recv[p] = (p + 2 * r) % 3;
    }
    const auto moved = group->all_to_all(noise({rows, 8}, r, type), send, recv, "rows").await();
    const auto sum = group->all_reduce(noise({1001}, r, type), "sum").await();
    const auto part = group->reduce_scatter(noise({8 * world.size(), 3}, r, type), "part").await();
    for (const auto& tensor : {moved, sum, part})
      bytes.append(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
  }
  return bytes;
}

/// The split sizes of an all-to-all: a host wait, as every layer has one.
void exchange_counts(Transport& group, const std::string& name, const std::function<void()>& launched) {
  const std::vector<int64_t> one(group.size(), 1);
  auto pending = group.all_to_all(at::full({group.size()}, group.rank(), at::kLong), one, one, name);
  launched();
  EXPECT_EQ(pending.await()[group.size() - 1].item<int64_t>(), group.size() - 1);
}

/// Runs steps of two collectives; one rank ends itself by a signal in step 2: while the others wait for its counts, or
/// before or after it launched the sum.
void run_until_killed(World& world, const fs::path& folder, const std::string& role) {
  std::istringstream words(role);
  std::string word, moment;
  int signal = 0, victim = 0;
  words >> word >> signal >> victim >> moment;
  const auto group = world.all();
  try {
    for (int step = 0; step < 100; ++step) {
      const auto die = [&](const char* now) {
        if (step != 2 || world.rank() != victim || moment != now) return;
        std::ofstream(folder / "died") << fmt::format("{}", now_us());
        raise(signal);
      };
      const auto waiting = [&](int rank) { return folder / fmt::format("waiting{}_{}", step, rank); };
      if (step == 2 && world.rank() == victim && moment == "inside_counts") {
        for (int r = 0; r < world.size(); ++r)
          while (r != victim && !fs::exists(waiting(r))) sleep_until_us(now_us() + 10e3);
        sleep_until_us(now_us() + 200e3);
        die("inside_counts");
      }
      exchange_counts(*group, fmt::format("mb0.l{}.fwd.counts", step),
                      [&] { std::ofstream(waiting(world.rank())) << "launched"; });
      die("before_launch");
      auto pending = group->all_reduce(at::ones({1 << 18}), fmt::format("step{}", step));
      die("before_await");
      pending.await();
    }
  } catch (const Error& error) {
    std::ofstream(folder / fmt::format("error{}", world.rank())) << fmt::format("{} {}", now_us(), error.what());
    throw;
  }
}

TEST(Rank, DISABLED_Body) {
  const char* role = std::getenv("FARSKIP_TEST_ROLE");
  const char* folder = std::getenv("FARSKIP_TEST_FOLDER");
  if (role == nullptr || folder == nullptr) GTEST_SKIP() << "not a test of its own: the tests of Processes start it";
  const auto info = detect_launch();
  if (std::string(role).starts_with("exit")) {
    if (info.rank == 1) _exit(std::atoi(role + 5));
    sleep_until_us(now_us() + 60e6);
  }
  const auto world = make_c10d(info, {.timeout_s = kTimeoutS + (std::string(role) == "bits" ? 60 : 0)});
  if (std::string(role) == "bits") {
    std::ofstream(fs::path(folder) / fmt::format("bits{}", info.rank), std::ios::binary) << bits_of(*world);
  } else {
    EXPECT_NE(error_of([&] { run_until_killed(*world, folder, role); }), "");
    FAIL() << "a rank that lost a peer fails";
  }
}

class Processes : public ::testing::Test {
 protected:
  Processes() {
    std::string pattern = (fs::temp_directory_path() / "farskip_ranks_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~Processes() override { fs::remove_all(folder_); }

  int spawn(int num_ranks, const std::string& role, const SpawnOptions& options = {}) {
    setenv("FARSKIP_TEST_ROLE", role.c_str(), 1);
    setenv("FARSKIP_TEST_FOLDER", folder_.c_str(), 1);
    return spawn_ranks(num_ranks,
                       {fs::read_symlink("/proc/self/exe"), "--gtest_filter=Rank.DISABLED_Body",
                        "--gtest_also_run_disabled_tests", "--gtest_brief=1"},
                       options);
  }

  /// Every survivor of three ended in time and named the victim and the collective that it was in.
  void expect_named(int signal, int victim, const std::string& moment,
                    const ::testing::Matcher<std::string>& collective = HasSubstr("step2")) {
    SCOPED_TRACE(fmt::format("signal {} to rank {}, {}", signal, victim, moment));
    EXPECT_NE(
        spawn(3, fmt::format("killed {} {} {}", signal, victim, moment), {.grace_s = kTimeoutS + 4, .kill_s = 0.5}), 0);
    const double died_us = std::stod(read_text(folder_ / "died"));
    for (int r = 0; r < 3; ++r) {
      if (r == victim) continue;
      const auto text = read_text(folder_ / fmt::format("error{}", r));
      ASSERT_NE(text, "") << "rank " << r << " did not end by itself";
      EXPECT_THAT(text, AllOf(collective, HasSubstr(fmt::format("rank {} is gone", victim)))) << "rank " << r;
      EXPECT_LT((std::stod(text) - died_us) * 1e-6, kTimeoutS + 2) << text;
    }
  }

  fs::path folder_;
};

TEST_F(Processes, GiveTheBitsOfThreads) {
  for (const int num_ranks : {2, 4}) {
    ASSERT_EQ(spawn(num_ranks, "bits"), 0);
    run_ranks(num_ranks, [&](World& world) {
      const auto own = bits_of(world);
      EXPECT_GT(own.size(), 4000u);
      EXPECT_TRUE(own == read_text(folder_ / fmt::format("bits{}", world.rank()))) << "rank " << world.rank();
    });
  }
}

TEST_F(Processes, KilledRankIsNamed) { expect_named(SIGKILL, 2, "before_launch"); }
// What it had launched may have left it whole: then the next collective is the first that lacks it.
TEST_F(Processes, KilledRankIsNamedDuringAwait) {
  expect_named(SIGKILL, 1, "before_await", AnyOf(HasSubstr("step2"), HasSubstr("mb0.l3.fwd.counts")));
}
TEST_F(Processes, KilledHostOfTheStoreIsNamed) { expect_named(SIGKILL, 0, "before_launch"); }
TEST_F(Processes, StoppedRankIsNamed) { expect_named(SIGSTOP, 1, "before_launch"); }
TEST_F(Processes, StoppedHostOfTheStoreIsNamed) { expect_named(SIGSTOP, 0, "before_launch"); }

class Counts : public Processes, public ::testing::WithParamInterface<std::tuple<int, int>> {};

TEST_P(Counts, LostRankIsNamed) {
  const auto [signal, victim] = GetParam();
  expect_named(signal, victim, "inside_counts", HasSubstr("mb0.l2.fwd.counts"));
}

std::string name_of(const ::testing::TestParamInfo<std::tuple<int, int>>& info) {
  const auto [signal, victim] = info.param;
  return fmt::format("{}{}", signal == SIGKILL ? "Kill" : "Stop", victim);
}
INSTANTIATE_TEST_SUITE_P(Signals, Counts,
                         ::testing::Combine(::testing::Values(SIGKILL, SIGSTOP), ::testing::Values(0, 2)), name_of);

TEST_F(Processes, LauncherReportsTheFirstFailureAndEndsTheRest) {
  const double begin_us = now_us();
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(spawn(2, "exit 7", {.grace_s = 0.2, .kill_s = 0.5}), 7);
  const auto text = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, AllOf(HasSubstr("rank 1 of 2"), HasSubstr("exited with status 7")));
  EXPECT_LT(now_us() - begin_us, 50e6) << "rank 0 would have slept for a minute";
}

// Other threads, such as a library's workers, do not block the signals and may take one that the launcher has seen
// come.
TEST_F(Processes, LauncherEndsBesideThreadsThatTakeItsSignals) {
  std::atomic<bool> stop = false;
  std::thread taker([&] {
    while (!stop) std::this_thread::yield();
  });
  for (int i = 0; i < 10; ++i) EXPECT_EQ(spawn_ranks(32, {"/bin/sh", "-c", "sleep 0.0$((RANK % 10))"}), 0);
  stop = true;
  taker.join();
}

TEST_F(Processes, LauncherRefusesNonsense) {
  EXPECT_THROW(spawn_ranks(0, {"true"}), Error);
  EXPECT_THROW(spawn_ranks(1, {}), Error);
  EXPECT_EQ(spawn_ranks(2, {"/does/not/exist"}), 127);
  EXPECT_EQ(spawn_ranks(2, {"/bin/true"}), 0);
}

TEST(Rendezvous, NamesARankThatDoesNotStart) {
  LaunchInfo info;
  info.size = 2;
  info.port = free_port();
  EXPECT_THAT(error_of([&] { make_c10d(info, {.timeout_s = 0.5}); }), HasSubstr("for rank 1 of 2"));
  EXPECT_THAT(error_of([&] { make_c10d(info, {}, "pigeons"); }), HasSubstr("available: gloo"));
}

}  // namespace
}  // namespace farskip
