#include "data/datasets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/files.h"
#include "data/batch_sampler.h"
#include "tests/base/temp_folder.h"
#include "tests/data/small_data.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using Tokens = std::vector<int32_t>;

/// Three data sets that their tokens tell apart: "a" has 0 .. 999, "b" 1000 .. 1299, "c" 2000 .. 2099, in documents of
/// ten tokens.
class DatasetsTest : public ::testing::Test {
 protected:
  DatasetsTest() {
    write_numbered(a_, std::vector<int64_t>(100, 10));
    write_numbered(b_, std::vector<int64_t>(30, 10), 1000);
    write_numbered(c_, std::vector<int64_t>(10, 10), 2000);
  }
  static int32_t source(const Sample& sample) { return sample.tokens[0] / 1000; }
  std::map<int32_t, int64_t> counts(const SampleDataset& dataset) {
    std::map<int32_t, int64_t> counts;
    for (int64_t i = 0; i < dataset.size(); ++i) ++counts[source(dataset.sample(i))];
    return counts;
  }
  DataOptions options(std::vector<std::string> data_path, int64_t num_samples = 100) {
    DataOptions options;
    options.data_path = std::move(data_path);
    options.seq_length = 9;
    options.train.num_samples = num_samples;
    return options;
  }

  TempFolder folder_;
  const std::string a_ = folder_ / "a", b_ = folder_ / "b", c_ = folder_ / "c";
};

TEST_F(DatasetsTest, WeightsAreSharesOfTheSamples) {
  using Counts = std::map<int32_t, int64_t>;
  EXPECT_EQ(counts(*open_datasets(options({"0.7", a_, "0.3", b_})).train), (Counts{{0, 70}, {1, 30}}));
  EXPECT_EQ(counts(*open_datasets(options({"0.2", a_, "0.8", b_})).train), (Counts{{0, 20}, {1, 80}}));
}

// split 969,30,1 leaves 97, 29 and 10 documents: (970 - 1) / 9 = 107, (290 - 1) / 9 = 32 and (100 - 1) / 9 = 11
// samples.
TEST_F(DatasetsTest, WithoutWeightsSizesDecide) {
  using Counts = std::map<int32_t, int64_t>;
  EXPECT_EQ(counts(*open_datasets(options({a_, b_, c_}, 150)).train), (Counts{{0, 107}, {1, 32}, {2, 11}}));
  EXPECT_EQ(counts(*open_datasets(options({a_, b_, c_}, 0)).train), (Counts{{0, 107}, {1, 32}, {2, 11}}));
  EXPECT_EQ(counts(*open_datasets(options({a_, b_, c_}, 300)).train), (Counts{{0, 214}, {1, 64}, {2, 22}}));
}

// 40 samples of c are 360 tokens: over three epochs of its 100.
TEST_F(DatasetsTest, ASmallDatasetIsReadInSeveralEpochsEachInItsOwnOrder) {
  const auto train = open_datasets(options({"0.6", a_, "0.4", c_}, 100)).train;
  std::map<int32_t, int> inputs;
  std::vector<Tokens> of_c;
  for (int64_t i = 0; i < train->size(); ++i) {
    const Sample sample = train->sample(i);
    if (source(sample) == 0) continue;
    of_c.push_back(sample.tokens);
    for (size_t t = 0; t < 9; ++t) ++inputs[sample.tokens[t]];
  }
  EXPECT_EQ(of_c.size(), 40u);
  EXPECT_EQ(inputs.size(), 100u);
  for (const auto& [token, count] : inputs) EXPECT_TRUE(count == 3 || count == 4) << token << " " << count;
  EXPECT_GE(std::set<Tokens>(of_c.begin(), of_c.end()).size(), 35u);  // documents join in other orders
}

TEST_F(DatasetsTest, SampleIDependsOnSeedAndPositionAlone) {
  const auto read = [&](int64_t num_samples, uint64_t seed) {
    DataOptions settings = options({"0.7", a_, "0.3", b_}, num_samples);
    settings.seed = seed;
    const auto train = open_datasets(settings).train;
    std::vector<Tokens> samples;
    for (int64_t i = 0; i < 60; ++i) samples.push_back(train->sample(i).tokens);
    return samples;
  };
  EXPECT_EQ(read(60, 1), read(60, 1));
  EXPECT_EQ(read(60, 1), read(500, 1));
  EXPECT_NE(read(60, 1), read(60, 2));
}

// What all ranks read, step by step, when a run is stopped and goes on with other ranks and micro batches.
TEST_F(DatasetsTest, AResumedRunReadsWhatItWouldHaveRead) {
  struct Run {
    int64_t micro, ranks, steps;
  };
  const auto read = [&](const std::vector<Run>& runs) {
    std::vector<Tokens> tokens;
    int64_t consumed = 0;
    for (const Run& run : runs) {
      const auto train = open_datasets(options({"0.7", a_, "0.3", c_}, 96)).train;  // opened anew: a new process
      const BatchSampler sampler(8, run.micro, run.ranks);
      for (int64_t step = 0; step < run.steps; ++step, consumed += 8) {
        for (int64_t rank = 0; rank < run.ranks; ++rank) {
          for (int64_t m = 0; m < sampler.num_microbatches(); ++m) {
            for (const int64_t i : sampler.samples_after(consumed, m, rank)) tokens.push_back(train->sample(i).tokens);
          }
        }
      }
    }
    return tokens;
  };
  const auto undisturbed = read({{2, 2, 12}});
  EXPECT_EQ(undisturbed.size(), 96u);
  EXPECT_EQ(read({{2, 2, 5}, {1, 4, 3}, {8, 1, 1}, {1, 1, 3}}), undisturbed);
}

TEST_F(DatasetsTest, PartsAreApart) {
  DataOptions settings = options({"0.5", a_, "0.5", b_}, 200);
  settings.split = "70,20,10";
  const Datasets datasets = open_datasets(settings);
  std::array<std::set<int32_t>, 3> tokens;
  const std::array parts = {datasets.train, datasets.valid, datasets.test};
  for (size_t part = 0; part < 3; ++part) {
    for (int64_t i = 0; i < parts[part]->size(); ++i) {
      const Sample sample = parts[part]->sample(i);
      tokens[part].insert(sample.tokens.begin(), sample.tokens.end());
    }
  }
  EXPECT_EQ(tokens[0].size(), 700u + 210u);
  EXPECT_EQ(*tokens[1].begin(), 700);    // 70 % of 100 documents of ten tokens
  EXPECT_EQ(*tokens[2].rbegin(), 1297);  // (30 - 1) / 9 samples of the last 30 tokens of b leave two tokens
  for (const int32_t token : tokens[1]) EXPECT_EQ(tokens[0].count(token) + tokens[2].count(token), 0u) << token;
}

TEST_F(DatasetsTest, EachPartFromItsOwnData) {
  DataOptions settings = options({});
  settings.train_data_path = {"0.9", a_, "0.1", b_};
  settings.valid_data_path = {c_};
  Datasets datasets = open_datasets(settings);
  EXPECT_EQ(datasets.valid->size(), 11);  // all of c: no split
  EXPECT_EQ(datasets.test, nullptr);
  EXPECT_EQ(datasets.valid->sample(0).tokens[0], 2000);

  write_file(folder_ / "parts.json",
             R"({"train": [0.9, ")" + a_ + R"(", "0.1", ")" + b_ + R"("], "test": [")" + c_ + R"("]})");
  settings = options({});
  settings.per_split_data_args_path = folder_ / "parts.json";
  const Datasets from_file = open_datasets(settings);
  EXPECT_EQ(from_file.valid, nullptr);
  EXPECT_EQ(from_file.test->size(), 11);
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(from_file.train->sample(i), datasets.train->sample(i));

  write_file(folder_ / "args", "0.7 " + a_ + "\n0.3 " + b_ + "\n");
  settings = options({});
  settings.data_args_path = folder_ / "args";
  const auto train = open_datasets(settings).train;
  EXPECT_EQ(counts(*train)[0], 70);
}

TEST_F(DatasetsTest, UnwantedAndEmptyParts) {
  DataOptions settings = options({a_});
  settings.split = "1";
  EXPECT_EQ(open_datasets(settings).valid, nullptr);
  settings.split = "1,1";
  settings.valid.wanted = false;
  EXPECT_EQ(open_datasets(settings).valid, nullptr);
  EXPECT_EQ(open_datasets(settings).train->size(), 100);
}

TEST_F(DatasetsTest, Errors) {
  EXPECT_THAT(error_of([&] { open_datasets(options({})); }), HasSubstr("data_path is not set"));
  DataOptions both = options({a_});
  both.valid_data_path = {b_};
  EXPECT_THAT(error_of([&] { open_datasets(both); }), HasSubstr("2 settings say where the data is"));
  EXPECT_THAT(error_of([&] { open_datasets(options({"1", a_, "1", folder_ / "none"})); }), HasSubstr("none.idx"));
  DataOptions too_long = options({a_, b_});
  too_long.seq_length = 5000;
  EXPECT_THAT(error_of([&] { open_datasets(too_long); }), HasSubstr("has the 5001 tokens of one sample"));
  DataOptions per_split = options({});
  per_split.per_split_data_args_path = folder_ / "parts.json";
  write_file(folder_ / "parts.json", R"({"training": ["a"]})");
  EXPECT_THAT(error_of([&] { open_datasets(per_split); }), HasSubstr("unknown part \"training\""));
  write_file(folder_ / "parts.json", "[");
  EXPECT_THAT(error_of([&] { open_datasets(per_split); }), HasSubstr("parts.json: not the JSON expected"));
}

TEST_F(DatasetsTest, ChecksumsOnRequest) {
  DataOptions settings = options({a_, b_});
  settings.verify_checksums = true;
  EXPECT_NE(open_datasets(settings).train, nullptr);
  std::string bytes = read_file(tokens_path(b_));
  bytes[4] ^= 1;
  write_file(tokens_path(b_), bytes);
  EXPECT_THAT(error_of([&] { open_datasets(settings); }), HasSubstr("b.bin: its SHA-256 is not the one in"));
  settings.verify_checksums = false;
  EXPECT_NE(open_datasets(settings).train, nullptr);
  std::filesystem::remove(b_ + ".sha256");
  settings.verify_checksums = true;
  EXPECT_THAT(error_of([&] { open_datasets(settings); }), HasSubstr("b.sha256"));
}

TEST_F(DatasetsTest, ResettingAsksForEndsOfDocuments) {
  DataOptions settings = options({"0.7", a_, "0.3", b_});
  settings.sample = {.reset_position_ids = true, .reset_attention_mask = true, .eod_token = 9};
  try {
    open_datasets(settings);
    ADD_FAILURE() << "b has no ends of documents";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr(b_ + ": its first document ends with token 1009 and not with 9"));
    EXPECT_THAT(error.what(), HasSubstr("--no-append-eod"));
  }
  settings.data_path = {a_};
  const auto train = open_datasets(settings).train;  // of its documents the first alone has the end
  int64_t several = 0;
  for (int64_t i = 0; i < train->size(); ++i) several += train->sample(i).cu_seqlens.size() > 2;
  EXPECT_GT(several, 0);
  settings.data_path = {b_};
  settings.sample.reset_attention_mask = false;
  EXPECT_NO_THROW(open_datasets(settings));
}

}  // namespace
}  // namespace farskip
