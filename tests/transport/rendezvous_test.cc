#include "transport/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace farskip {
namespace {

LaunchInfo detect(const std::map<std::string, std::string>& variables) {
  return detect_launch([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string refusal(const std::map<std::string, std::string>& variables) {
  try {
    detect(variables);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(DetectLaunch, WithoutALauncherThereIsOneRank) {
  const auto info = detect({});
  EXPECT_EQ(info.size, 1);
  EXPECT_EQ(info.source, "single");
}

TEST(DetectLaunch, Torchrun) {
  const auto info = detect({{"RANK", "5"},
                            {"WORLD_SIZE", "8"},
                            {"LOCAL_RANK", "1"},
                            {"LOCAL_WORLD_SIZE", "4"},
                            {"MASTER_ADDR", "10.0.0.7"},
                            {"MASTER_PORT", "1234"},
                            {"TORCHELASTIC_USE_AGENT_STORE", "True"}});
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.size, 8);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_size, 4);
  EXPECT_EQ(info.host, "10.0.0.7");
  EXPECT_EQ(info.port, 1234);
  EXPECT_FALSE(info.hosts_store);
}

TEST(DetectLaunch, Mpirun) {
  const auto info = detect({{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_EQ(info.source, "mpirun");
  EXPECT_EQ(info.rank, 1);
  EXPECT_EQ(info.host, "127.0.0.1");
  EXPECT_TRUE(info.hosts_store);
  EXPECT_EQ(detect({{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"MASTER_ADDR", "n1"}}).rank, 2);
}

TEST(DetectLaunch, Srun) {
  const auto info = detect({{"SLURM_PROCID", "3"},
                            {"SLURM_NTASKS", "4"},
                            {"SLURM_LOCALID", "1"},
                            {"SLURM_JOB_NODELIST", "gpu[003-004]"},
                            {"SLURM_JOB_ID", "1234567"}});
  EXPECT_EQ(info.source, "srun");
  EXPECT_EQ(info.host, "gpu003");
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_GE(info.port, 20000);
}

TEST(DetectLaunch, NamesWhatIsWrong) {
  EXPECT_THAT(refusal({{"RANK", "0"}}), ::testing::HasSubstr("WORLD_SIZE is not"));
  EXPECT_THAT(refusal({{"WORLD_SIZE", "2"}}), ::testing::HasSubstr("RANK is not"));
  EXPECT_THAT(refusal({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), ::testing::HasSubstr("RANK=2"));
  EXPECT_THAT(refusal({{"RANK", "one"}, {"WORLD_SIZE", "2"}}), ::testing::HasSubstr("'one'"));
  EXPECT_THAT(refusal({{"RANK", "1"}, {"WORLD_SIZE", "2"}}), ::testing::HasSubstr("MASTER_ADDR"));
  EXPECT_THAT(refusal({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "0"}}),
              ::testing::HasSubstr("MASTER_PORT=0"));
}

TEST(FirstHost, OfNodeLists) {
  EXPECT_EQ(first_host("node003"), "node003");
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("node[003-007,9],gpu1"), "node003");
  EXPECT_EQ(first_host("node[12]"), "node12");
  EXPECT_EQ(first_host("head,node[1-2]"), "head");
  EXPECT_THROW(first_host("node[1-2"), Error);
}

TEST(FreePort, CanBeUsed) { EXPECT_GT(free_port(), 1023); }

}  // namespace
}  // namespace farskip
