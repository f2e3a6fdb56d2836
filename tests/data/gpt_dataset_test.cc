#include "data/gpt_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
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

std::shared_ptr<const IndexedDataset> make_data(const TempFolder& folder, const std::vector<int64_t>& lengths) {
  return write_numbered(folder / "data", lengths);
}

class GptDatasetTest : public ::testing::Test {
 protected:
  TempFolder folder_;
  /// 5 + 1 + 0 + 7 + 4 = 17 tokens.
  std::shared_ptr<const IndexedDataset> data_ = make_data(folder_, {5, 1, 0, 7, 4});
  const SequenceRange all_{0, 5};
};

TEST_F(GptDatasetTest, OnePassInOrder) {
  const GptDataset dataset(data_, all_, {.seq_length = 4, .shuffle = false});
  ASSERT_EQ(dataset.size(), 4);  // (17 - 1) / 4
  EXPECT_EQ(dataset.num_epochs(), 1);
  EXPECT_EQ(dataset.get_sample(0), (Tokens{0, 1, 2, 3, 4}));
  EXPECT_EQ(dataset.get_sample(1), (Tokens{4, 5, 6, 7, 8}));  // crosses the empty document
  EXPECT_EQ(dataset.get_sample(3), (Tokens{12, 13, 14, 15, 16}));
}

TEST_F(GptDatasetTest, SeveralEpochsInOrderCrossTheirBounds) {
  const GptDataset dataset(data_, all_, {.seq_length = 4, .num_samples = 20, .shuffle = false});
  EXPECT_EQ(dataset.num_epochs(), 5);  // sample 19 begins at token 76 of 85
  for (int64_t i = 0; i < 20; ++i) {
    for (int64_t j = 0; j < 5; ++j) EXPECT_EQ(dataset.get_sample(i)[static_cast<size_t>(j)], (4 * i + j) % 17);
  }
}

TEST_F(GptDatasetTest, ARangeSeesItsDocumentsOnly) {
  const GptDataset dataset(data_, {3, 5}, {.seq_length = 5, .num_samples = 50});
  EXPECT_EQ(dataset.num_tokens(), 11);
  for (int64_t i = 0; i < dataset.size(); ++i) {
    for (const int32_t token : dataset.get_sample(i)) EXPECT_TRUE(token >= 6 && token <= 16) << token;
  }
}

// 17 samples of 4 tokens are 4 epochs of 17: the inputs of the samples are every token four times, shuffled or not.
TEST_F(GptDatasetTest, EveryTokenIsAnInputOncePerEpoch) {
  const GptDataset dataset(data_, all_, {.seq_length = 4, .num_samples = 17, .seed = 5});
  std::map<int32_t, int> counts;
  for (int64_t i = 0; i < 17; ++i) {
    const Tokens sample = dataset.get_sample(i);
    for (size_t j = 0; j < 4; ++j) ++counts[sample[j]];
  }
  EXPECT_EQ(counts.size(), 17u);
  for (const auto& [token, count] : counts) EXPECT_EQ(count, 4) << token;
}

TEST_F(GptDatasetTest, ShufflingIsAPermutationOfTheSamplesOfTheEpoch) {
  const auto data = make_data(folder_, {4001});
  const GptDataset shuffled(data, {0, 1}, {.seq_length = 10, .seed = 3});
  const GptDataset plain(data, {0, 1}, {.seq_length = 10, .shuffle = false});
  ASSERT_EQ(shuffled.size(), 400);
  std::vector<Tokens> in_order, drawn;
  for (int64_t i = 0; i < 400; ++i) {
    in_order.push_back(plain.get_sample(i));
    drawn.push_back(shuffled.get_sample(i));
  }
  EXPECT_NE(drawn, in_order);
  std::sort(drawn.begin(), drawn.end());
  EXPECT_EQ(drawn, in_order);
}

TEST_F(GptDatasetTest, DocumentsAreShuffledToo) {
  const auto data = make_data(folder_, std::vector<int64_t>(100, 10));
  const GptDataset dataset(data, {0, 100}, {.seq_length = 20, .seed = 3});
  int joined = 0;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const Tokens sample = dataset.get_sample(i);
    if (sample[10] == sample[9] + 1) ++joined;
  }
  EXPECT_LT(joined, 5);  // neighbours in the file seldom meet
}

TEST_F(GptDatasetTest, TheSameForEqualSeedsAndALongerTrainingBeginsAlike) {
  const auto samples = [&](uint64_t seed, int64_t num_samples) {
    const GptDataset dataset(data_, all_, {.seq_length = 3, .num_samples = num_samples, .seed = seed});
    EXPECT_EQ(dataset.size(), num_samples);
    std::vector<Tokens> all;
    for (int64_t i = 0; i < 30; ++i) all.push_back(dataset.get_sample(i));
    return all;
  };
  EXPECT_EQ(samples(1, 30), samples(1, 30));
  EXPECT_EQ(samples(1, 30), samples(1, 97));
  EXPECT_NE(samples(1, 30), samples(2, 30));
}

TEST_F(GptDatasetTest, EpochsAreOrderedDifferently) {
  const auto data = make_data(folder_, std::vector<int64_t>(40, 4));
  const GptDataset dataset(data, {0, 40}, {.seq_length = 4, .num_samples = 80});
  std::vector<Tokens> first, second;
  for (int64_t i = 0; i < 40; ++i) {
    Tokens a = dataset.get_sample(i), b = dataset.get_sample(40 + i);
    first.push_back({a.begin(), a.begin() + 4});
    second.push_back({b.begin(), b.begin() + 4});
  }
  EXPECT_NE(first, second);
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, second);
}

TEST_F(GptDatasetTest, TooSmallSaysBothNumbersAndTheCure) {
  const std::string text = error_of([&] { GptDataset(data_, {3, 5}, {.seq_length = 11, .name = "valid"}); });
  EXPECT_THAT(text, HasSubstr("the valid part has 11 tokens in 2 documents, fewer than the 12 of one sample"));
  EXPECT_THAT(text, HasSubstr("shorten seq_length"));
  EXPECT_EQ(GptDataset(data_, {3, 5}, {.seq_length = 10}).size(), 1);
  EXPECT_THAT(error_of([&] {
                GptDataset(data_, {2, 2}, {.seq_length = 1});
              }),
              HasSubstr("has 0 tokens in 0 documents"));
  EXPECT_THAT(error_of([&] { GptDataset(data_, all_, {.seq_length = 0}); }), HasSubstr("seq_length=0"));
  EXPECT_THAT(error_of([&] { GptDataset(data_, all_, {.seq_length = 4, .num_samples = -1}); }),
              HasSubstr("-1 samples"));
}

TEST_F(GptDatasetTest, TheIndexIsBuiltOnceAndSharedByEqualQuestions) {
  const GptDatasetOptions options{.seq_length = 4, .num_samples = 9};
  const GptDataset first(data_, all_, options);
  EXPECT_THAT(first.index_path(), HasSubstr(folder_ / "data/cache/"));
  const auto written = std::filesystem::last_write_time(first.index_path());
  const GptDataset second(data_, all_, options);
  EXPECT_EQ(second.index_path(), first.index_path());
  EXPECT_EQ(std::filesystem::last_write_time(first.index_path()), written);

  std::set<std::string> paths = {first.index_path()};
  for (const auto& [range, other] : std::vector<std::pair<SequenceRange, GptDatasetOptions>>{
           {{0, 4}, options},
           {all_, {.seq_length = 5, .num_samples = 9}},
           {all_, {.seq_length = 4, .num_samples = 30}},
           {all_, {.seq_length = 4, .num_samples = 9, .seed = 1}},
           {all_, {.seq_length = 4, .num_samples = 9, .shuffle = false}}}) {
    EXPECT_TRUE(paths.insert(GptDataset(data_, range, other).index_path()).second);
  }
}

TEST_F(GptDatasetTest, ChangedDataHasAnIndexOfItsOwn) {
  const std::string before = GptDataset(data_, all_, {.seq_length = 4}).index_path();
  const auto longer = make_data(folder_, {5, 1, 0, 8, 4});
  const GptDataset dataset(longer, all_, {.seq_length = 4, .shuffle = false});
  EXPECT_NE(dataset.index_path(), before);
  EXPECT_EQ(dataset.get_sample(3), (Tokens{12, 13, 14, 15, 16}));
}

TEST_F(GptDatasetTest, ADamagedIndexIsBuiltAnewOrNamed) {
  const GptDatasetOptions options{.seq_length = 4, .num_samples = 9};
  std::string path, contents;
  Tokens sample;
  {
    const GptDataset dataset(data_, all_, options);
    path = dataset.index_path(), contents = read_file(path), sample = dataset.get_sample(0);
  }
  for (const std::string& damaged : {std::string(), contents.substr(0, contents.size() - 1), contents + "x"}) {
    write_file(path, damaged);
    EXPECT_EQ(GptDataset(data_, all_, options).get_sample(0), sample);
    EXPECT_EQ(read_file(path), contents);
  }
  for (size_t at = 0; at + 200 < contents.size(); at += 8) {
    std::string damaged = contents;
    damaged.replace(at, 8, 8, '\x7f');
    write_file(path, damaged);
    const GptDataset dataset(data_, all_, options);
    int errors = 0;
    for (int64_t i = 0; i < dataset.size(); ++i) {
      try {
        dataset.get_sample(i);
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr(path + ": damaged; delete it"));
        ++errors;
      }
    }
    EXPECT_LE(errors, dataset.size());
  }
}

TEST_F(GptDatasetTest, AnotherFolderForTheIndex) {
  const GptDataset dataset(data_, all_, {.seq_length = 4, .data_cache_path = folder_ / "cache"});
  EXPECT_THAT(dataset.index_path(), HasSubstr(folder_ / "cache/"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "data"));
  write_file(folder_ / "file", "");
  EXPECT_THAT(error_of([&] { GptDataset(data_, all_, {.seq_length = 4, .data_cache_path = folder_ / "file"}); }),
              HasSubstr("data_cache_path names another folder"));
}

TEST_F(GptDatasetTest, SamplesCarryMasksPositionsAndBounds) {
  // Targets are the even tokens; 5 and 9 play the end of a document.
  IndexedDatasetWriter writer(folder_ / "mask", TokenType::uint8);
  int32_t next = 0;
  for (const int length : {5, 1, 0, 7, 4}) {
    Tokens mask;
    for (int i = 0; i < length; ++i) mask.push_back(next++ % 2 == 0);
    writer.add_document(mask);
  }
  writer.commit();
  GptDatasetOptions options{.seq_length = 6, .shuffle = false};
  options.sample = {.reset_position_ids = true, .reset_attention_mask = true, .eod_mask_loss = true, .eod_token = 9};
  options.target_mask = std::make_shared<const IndexedDataset>(folder_ / "mask");
  const GptDataset dataset(data_, all_, options);
  const Sample sample = dataset.sample(1);  // tokens 6 .. 12
  EXPECT_EQ(sample.tokens, (Tokens{6, 7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(sample.loss_mask, (std::vector<uint8_t>{0, 1, 0, 0, 0, 1}));  // 10 would be a target, but 9 predicts it
  EXPECT_EQ(sample.position_ids, (Tokens{0, 1, 2, 3, 0, 1}));
  EXPECT_EQ(sample.cu_seqlens, (Tokens{0, 4, 6}));

  const TempFolder other;
  options.target_mask = write_numbered(other / "mask", {5, 1, 0, 6, 5});
  EXPECT_THAT(error_of([&] { GptDataset(data_, all_, options); }), HasSubstr("other lengths than those of"));
}

TEST_F(GptDatasetTest, TokensAboveTheVocabulary) {
  const GptDataset dataset(data_, all_, {.seq_length = 16, .shuffle = false, .vocab_size = 16});
  EXPECT_THAT(error_of([&] { dataset.get_sample(0); }), HasSubstr("token id 16, but the model has vocab_size=16"));
}

TEST(Split, AsMegatron) {
  DatasetSplit split = split_sequences("969,30,1", 1189);
  EXPECT_EQ(split.train, (SequenceRange{0, 1152}));
  EXPECT_EQ(split.valid, (SequenceRange{1152, 1188}));
  EXPECT_EQ(split.test, (SequenceRange{1188, 1189}));
  split = split_sequences("1,1", 5);  // 2.5 to even
  EXPECT_EQ(split.train, (SequenceRange{0, 2}));
  EXPECT_EQ(split.valid, (SequenceRange{2, 5}));
  EXPECT_EQ(split.test.size(), 0);
  EXPECT_EQ(split_sequences("1", 7).train, (SequenceRange{0, 7}));
}

TEST(Split, Errors) {
  for (const std::string text : {"", "a", "1,", ",1", "1,-1", "nan", "1;2", "1,inf", "1 2"}) {
    EXPECT_THAT(error_of([&] { split_sequences(text, 10); }), HasSubstr("three non-negative numbers")) << text;
  }
  EXPECT_THAT(error_of([] { split_sequences("1,1,1,1", 10); }), HasSubstr("4 numbers"));
  EXPECT_THAT(error_of([] { split_sequences("0,0", 10); }), HasSubstr("all shares are 0"));
}

TEST(BatchSampler, TheGlobalBatchIsTheSameForAnyNumberOfRanks) {
  for (const int64_t num_ranks : {1, 2, 4}) {
    for (const int64_t micro : {1, 2, 4}) {
      const BatchSampler sampler(16, micro, num_ranks);
      EXPECT_EQ(sampler.num_microbatches(), 16 / micro / num_ranks);
      for (int64_t step = 0; step < 3; ++step) {
        std::vector<int64_t> batch;
        for (int64_t rank = 0; rank < num_ranks; ++rank) {
          for (int64_t m = 0; m < sampler.num_microbatches(); ++m) {
            const std::vector<int64_t> part = sampler.samples(step, m, rank);
            batch.insert(batch.end(), part.begin(), part.end());
          }
        }
        std::vector<int64_t> expected(16);
        std::iota(expected.begin(), expected.end(), 16 * step);
        EXPECT_EQ(batch, expected) << num_ranks << " ranks, micro batch " << micro;
      }
    }
  }
}

// A training that stops after any number of steps and goes on with another micro batch size, number of ranks and
// global batch size sees the samples that follow those consumed, each once.
TEST(BatchSampler, ConsumedSamplesAloneSayWhereTrainingGoesOn) {
  struct Run {
    int64_t global, micro, ranks, steps;
  };
  int64_t consumed = 0;
  std::vector<int64_t> seen;
  for (const Run run : {Run{8, 2, 2, 3}, Run{8, 1, 4, 2}, Run{8, 8, 1, 1}, Run{12, 3, 2, 2}, Run{6, 1, 3, 1}}) {
    const BatchSampler sampler(run.global, run.micro, run.ranks);
    for (int64_t step = 0; step < run.steps; ++step, consumed += run.global) {
      for (int64_t rank = 0; rank < run.ranks; ++rank) {
        for (int64_t m = 0; m < sampler.num_microbatches(); ++m) {
          const std::vector<int64_t> part = sampler.samples_after(consumed, m, rank);
          EXPECT_EQ(static_cast<int64_t>(part.size()), run.micro);
          seen.insert(seen.end(), part.begin(), part.end());
        }
      }
    }
  }
  std::vector<int64_t> expected(78);  // 3*8 + 2*8 + 8 + 2*12 + 6
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(seen, expected);
}

TEST(BatchSampler, Errors) {
  EXPECT_THAT(error_of([] { BatchSampler(10, 2, 2); }),
              HasSubstr("global_batch_size=10 cannot be divided by micro_batch_size=2 times 2 data-parallel ranks (4); "
                        "the nearest that can: 8 and 12"));
  EXPECT_THAT(error_of([] { BatchSampler(3, 2, 2); }), HasSubstr("that can: 4"));
  EXPECT_THAT(error_of([] { BatchSampler(0, 1, 1); }), HasSubstr("global_batch_size=0"));
  EXPECT_THAT(error_of([] { BatchSampler(4, 0, 1); }), HasSubstr("micro_batch_size=0"));
}

}  // namespace
}  // namespace farskip
