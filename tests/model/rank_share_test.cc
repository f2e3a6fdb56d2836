// No rank reads or makes more than it holds: of a checkpoint its own experts' bytes and the replicated ones, of a new
// model its own part.

#include <ATen/ATen.h>

#include <cstdlib>
#include <functional>

#include "model/checkpoint.h"
#include "model/initialize.h"
#include "model/safetensors.h"
#include "tests/model/memory_test.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;

ParameterOptions rank_of(int64_t rank, int64_t ranks) {
  ParameterOptions options;
  options.expert_rank = rank;
  options.expert_ranks = ranks;
  return options;
}

TEST(RankShare, LoadingReadsOneRanksExpertsAndWhatAllHave) {
  TempFolder folder;
  const auto table = make_table(small_config());
  ParameterSet whole(table, {});
  initialize(whole, {});
  SaveOptions options;
  save_checkpoint(folder / "one_file", nlohmann::json::object(), whole, options);
  options.max_shard_bytes = 4000;
  save_checkpoint(folder / "shards", nlohmann::json::object(), whole, options);
  ASSERT_TRUE(fs::exists(folder / "one_file/model.safetensors"));
  ASSERT_GT(std::distance(fs::directory_iterator(folder / "shards"), fs::directory_iterator()), 5);

  // By the names alone, not by the table that loading walks.
  const SafetensorsReader reader(folder / "one_file");
  uint64_t in_all = 0, replicated = 0;
  std::vector<uint64_t> of_expert(4, 0);
  for (const auto& name : reader.names()) {
    const uint64_t bytes = reader.spec(name).num_bytes();
    in_all += bytes;
    const size_t at = name.find(".experts.");
    (at == name.npos ? replicated : of_expert.at(std::stoul(name.substr(at + 9)))) += bytes;
  }
  ASSERT_GT(of_expert[3], 0u);
  for (const char* source : {"one_file", "shards"}) {
    for (const int64_t ranks : {1, 2, 4}) {
      for (int64_t rank = 0; rank < ranks; ++rank) {
        ParameterSet part(table, rank_of(rank, ranks));
        const LoadReport report = load_checkpoint(folder / source, part);
        uint64_t own = replicated;
        for (int64_t e = part.first_expert(); e < part.first_expert() + part.num_local_experts(); ++e)
          own += of_expert[e];
        EXPECT_EQ(report.bytes_read, own) << source << ", rank " << rank << " of " << ranks;
        EXPECT_EQ(report.bytes_in_folder, in_all) << source;
        EXPECT_GT(report.seconds, 0);
      }
    }
  }
}

TEST(RankShare, TheReaderCountsWhatItGives) {
  TempFolder folder;
  ParameterSet set(make_table(small_config()), {});
  initialize(set, {});
  save_checkpoint(folder / "model", nlohmann::json::object(), set);
  const SafetensorsReader reader(folder / "model");
  EXPECT_EQ(reader.bytes_read(), 0u) << "opening reads headers alone";
  const at::Tensor norm = reader.tensor("model.norm.weight");
  reader.tensor("model.norm.weight");
  EXPECT_EQ(reader.bytes_read(), 2u * 16 * 4);
  reader.release("model.norm.weight");
  EXPECT_TRUE(at::equal(norm, at::ones({16}))) << "what was released can be read again";
  EXPECT_THROW(reader.release("absent"), Error);
}

/// 48 MiB of experts; everything else is small.
ModelConfig many_experts() {
  ModelConfig config = small_config();
  config.num_experts = 64;
  config.hidden_size = 128;
  config.moe_intermediate_size = 256;
  return config;
}

constexpr int64_t kMiB = 1 << 20;

// In processes of their own, whose memory nobody else has used. A rank's part is 1.5 MiB of the whole of 48 MiB.
TEST(RankShareDeathTest, AModelIsInitialisedWithoutEverExistingWhole) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto table = make_table(many_experts());
  const auto expert_bytes = static_cast<int64_t>(64) * 3 * 128 * 256 * 4 * 2;
  ASSERT_EQ(expert_bytes, 48 * kMiB);
  const auto make = [&](int64_t ranks) {
    ParameterSet part(table, rank_of(ranks - 1, ranks));
    initialize(part, {});
  };
  EXPECT_EXIT(expect_memory(0, 12 * kMiB, [&] { make(32); }), ::testing::ExitedWithCode(0), "");
  // The measure sees a whole model.
  EXPECT_EXIT(expect_memory(expert_bytes, 2 * expert_bytes, [&] { make(1); }), ::testing::ExitedWithCode(0), "");
}

// The same for loading: the pages of a mapped file do not pile up.
TEST(RankShareDeathTest, AModelIsLoadedWithoutEverExistingWhole) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TempFolder folder;
  const auto table = make_table(many_experts());
  {
    ParameterSet whole(table, {});
    save_checkpoint(folder / "model", nlohmann::json::object(), whole);
  }
  const auto load = [&](int64_t ranks) {
    ParameterSet part(table, rank_of(0, ranks));
    load_checkpoint(folder / "model", part);
    fs::remove_all(folder.string());  // nobody else does: the process ends here
  };
  EXPECT_EXIT(expect_memory(0, 12 * kMiB, [&] { load(32); }), ::testing::ExitedWithCode(0), "");
  // One copy and not two: what has been copied is released.
  EXPECT_EXIT(expect_memory(48 * kMiB, 60 * kMiB, [&] { load(1); }), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace farskip
