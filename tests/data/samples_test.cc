#include "data/samples.h"

#include <gtest/gtest.h>

#include <vector>

#include "data/byte_tokenizer.h"

namespace farskip {
namespace {

using Tokens = std::vector<int32_t>;
using Mask = std::vector<uint8_t>;

constexpr int32_t E = ByteTokenizer::kEndOfDocument;
constexpr SampleOptions kAll{.reset_position_ids = true, .reset_attention_mask = true, .eod_mask_loss = true};

TEST(Samples, WithoutOptionsASequenceIsOneDocument) {
  const Sample sample = make_sample({1, 2, E, 3, 4}, {}, {});
  EXPECT_EQ(sample.tokens, (Tokens{1, 2, E, 3, 4}));
  EXPECT_EQ(sample.loss_mask, (Mask{1, 1, 1, 1}));
  EXPECT_EQ(sample.position_ids, (Tokens{0, 1, 2, 3}));
  EXPECT_EQ(sample.cu_seqlens, (Tokens{0, 4}));
}

TEST(Samples, DocumentsEndWithTheirEndOfDocument) {
  const Sample sample = make_sample({1, 2, E, 3, E, 4, 5, 6}, {}, kAll);
  EXPECT_EQ(sample.loss_mask, (Mask{1, 1, 0, 1, 0, 1, 1}));
  EXPECT_EQ(sample.position_ids, (Tokens{0, 1, 2, 0, 1, 0, 1}));
  EXPECT_EQ(sample.cu_seqlens, (Tokens{0, 3, 5, 7}));
}

TEST(Samples, EveryOptionChangesItsOwnFieldOnly) {
  const Tokens tokens = {1, E, 2, 3};
  const Sample plain = make_sample(tokens, {}, {});
  Sample expected = plain;
  expected.position_ids = {0, 1, 0};
  EXPECT_EQ(make_sample(tokens, {}, {.reset_position_ids = true}), expected);
  expected = plain;
  expected.cu_seqlens = {0, 2, 3};
  EXPECT_EQ(make_sample(tokens, {}, {.reset_attention_mask = true}), expected);
  expected = plain;
  expected.loss_mask = {1, 0, 1};
  EXPECT_EQ(make_sample(tokens, {}, {.eod_mask_loss = true}), expected);
  EXPECT_EQ(make_sample(tokens, {}, {.eod_mask_loss = true, .eod_token = 9}), plain);
}

TEST(Samples, EndsOfDocumentsAtTheEdges) {
  // First, twice in a row, last input (no empty document follows) and last target (never an input).
  Sample sample = make_sample({E, E, 1, E, 2}, {}, kAll);
  EXPECT_EQ(sample.position_ids, (Tokens{0, 0, 0, 1}));
  EXPECT_EQ(sample.cu_seqlens, (Tokens{0, 1, 2, 4}));
  sample = make_sample({1, 2, E}, {}, kAll);
  EXPECT_EQ(sample.loss_mask, (Mask{1, 1}));
  EXPECT_EQ(sample.cu_seqlens, (Tokens{0, 2}));
}

TEST(Samples, TargetsAreMaskedWhereTheyArePredicted) {
  const Sample sample = make_sample({1, 2, 3, E, 4}, Tokens{1, 0, 1, 1, 1}, kAll);
  EXPECT_EQ(sample.loss_mask, (Mask{0, 1, 1, 0}));
}

}  // namespace
}  // namespace farskip
