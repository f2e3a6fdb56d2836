#include "data/trigram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "data/indexed_dataset.h"
#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using Tokens = std::vector<int32_t>;

// The text "0 1 0 1 0 2" of four ids, by hand.
//   unigrams: n = 6, t = 3 (0: 3, 1: 2, 2: 1);   after 0: n = 3, t = 2 (1: 2, 2: 1);   after 1: n = 2, t = 1 (0: 2)
//   after 0 1: n = 2, t = 1 (0: 2);   after 1 0: n = 2, t = 2 (1: 1, 2: 1)
TEST(Trigram, ByHand) {
  TrigramModel model(4);
  const Tokens text{0, 1, 0, 1, 0, 2};
  model.train(text);
  const auto probability = [&](Tokens context, int32_t token) { return model.probability(context, token); };
  const double p0 = (3 + 3 * 0.25) / 9, p1 = (2 + 3 * 0.25) / 9, p2 = (1 + 3 * 0.25) / 9, p3 = 3 * 0.25 / 9;
  EXPECT_DOUBLE_EQ(probability({}, 0), p0);
  EXPECT_DOUBLE_EQ(probability({}, 3), p3);
  const double p2_after_0 = (1 + 2 * p2) / 5;
  EXPECT_DOUBLE_EQ(probability({0}, 2), p2_after_0);
  EXPECT_DOUBLE_EQ(probability({1}, 0), (2 + p0) / 3);
  EXPECT_DOUBLE_EQ(probability({1, 0}, 2), (1 + 2 * p2_after_0) / 4);
  EXPECT_DOUBLE_EQ(probability({0, 1}, 1), ((0 + p1) / 3) / 3);  // never seen at either length
  EXPECT_DOUBLE_EQ(probability({0, 0}, 2), p2_after_0);          // context never seen
  EXPECT_DOUBLE_EQ(probability({2}, 1), p1);
  EXPECT_DOUBLE_EQ(probability({3, 3, 3, 1, 0}, 2), probability({1, 0}, 2));
}

TEST(Trigram, SumsToOne) {
  TrigramModel model(8);
  Tokens text;
  for (int i = 0; i < 500; ++i) text.push_back((i * i + i / 3) % 7);
  model.train(text);
  for (int32_t a = 0; a < 8; ++a) {
    for (int32_t b = 0; b < 8; ++b) {
      double sum = 0;
      for (int32_t c = 0; c < 8; ++c) sum += model.probability(Tokens{a, b}, c);
      EXPECT_NEAR(sum, 1.0, 1e-12) << a << " " << b;
    }
  }
}

TEST(Trigram, UntrainedIsUniform) {
  EXPECT_DOUBLE_EQ(TrigramModel(4).probability(Tokens{1, 2}, 3), 0.25);
  TrigramModel model(4);
  EXPECT_THAT(error_of([&] { model.train(Tokens{4}); }), HasSubstr("ids below 4, but the text has 4"));
}

// Train on document 0, judge document 1 in samples of 2 + 1 tokens: {0 1 0} and {0 2 3}.
TEST(Trigram, LossIsOnTheTargetsOfTheSamples) {
  TempFolder folder;
  IndexedDatasetWriter writer(folder / "data", TokenType::uint16);
  writer.add_document(Tokens{0, 1, 0, 1, 0, 2});
  writer.add_document(Tokens{0, 1, 0, 2, 3});
  writer.commit();
  const auto data = std::make_shared<IndexedDataset>(folder / "data");
  const GptDataset train(data, {0, 1}, {.seq_length = 2, .num_samples = 9});
  const GptDataset valid(data, {1, 2}, {.seq_length = 2, .shuffle = false});
  TrigramModel model(4);
  model.train(data->sequence(0));
  const auto nats = [&](Tokens context, int32_t token) { return -std::log(model.probability(context, token)); };
  const double first = nats({0}, 1) + nats({0, 1}, 0);
  const double second = nats({0}, 2) + nats({0, 2}, 3);
  EXPECT_DOUBLE_EQ(trigram_loss(train, valid, 4), (first + second) / 4);
  EXPECT_DOUBLE_EQ(trigram_loss(train, valid, 4, 1), first / 2);
}

}  // namespace
}  // namespace farskip
