// Batch sizes by hand, and the closed forms against a run counted step by step.

#include "config/batch_ramp.h"

#include <gmock/gmock.h>

#include "helpers.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// 4 to 16 in increments of 4 over 60 samples: 20 samples for each of the sizes 4, 8 and 12.
TEST(BatchRamp, GrowsWithConsumedSamples) {
  const BatchRamp ramp = BatchRamp::parse("4,4,60", 16);
  for (int64_t consumed : {0, 4, 16, 19}) EXPECT_EQ(ramp.batch_size(consumed), 4);
  for (int64_t consumed : {20, 28, 36, 39}) EXPECT_EQ(ramp.batch_size(consumed), 8);
  for (int64_t consumed : {40, 44, 56, 59}) EXPECT_EQ(ramp.batch_size(consumed), 12);
  for (int64_t consumed : {60, 61, 1000000}) EXPECT_EQ(ramp.batch_size(consumed), 16);
  // 5 steps of 4 (20), 3 of 8 (44: the border at 40 is passed inside a step), 2 of 12 (68), then 16.
  EXPECT_EQ(ramp.at(0), (BatchPosition{0, 4}));
  EXPECT_EQ(ramp.at(4), (BatchPosition{16, 4}));
  EXPECT_EQ(ramp.at(5), (BatchPosition{20, 8}));
  EXPECT_EQ(ramp.at(7), (BatchPosition{36, 8}));
  EXPECT_EQ(ramp.at(8), (BatchPosition{44, 12}));
  EXPECT_EQ(ramp.at(9), (BatchPosition{56, 12}));
  EXPECT_EQ(ramp.at(10), (BatchPosition{68, 16}));
  EXPECT_EQ(ramp.at(1010), (BatchPosition{68 + 16000, 16}));
  EXPECT_EQ(ramp.iterations_for(0), 0);
  EXPECT_EQ(ramp.iterations_for(1), 1);
  EXPECT_EQ(ramp.iterations_for(20), 5);
  EXPECT_EQ(ramp.iterations_for(21), 6);
  EXPECT_EQ(ramp.iterations_for(68), 10);
  EXPECT_EQ(ramp.iterations_for(69), 11);
}

TEST(BatchRamp, ClosedFormsAreThoseOfACountedRun) {
  for (const BatchRamp& ramp : {BatchRamp(12), BatchRamp(64, 8, 8, 1000), BatchRamp(64, 2, 31, 7),
                                BatchRamp(100, 1, 1, 99), BatchRamp(7, 7, 3, 50), BatchRamp(48, 16, 16, 5001)}) {
    int64_t consumed = 0;
    for (int64_t iteration = 0; iteration < 300; ++iteration) {
      const int64_t size = ramp.batch_size(consumed);
      ASSERT_EQ(ramp.at(iteration), (BatchPosition{consumed, size})) << iteration;
      EXPECT_EQ(ramp.iterations_for(consumed), iteration);
      EXPECT_EQ(ramp.iterations_for(consumed + 1), iteration + 1);
      EXPECT_EQ(ramp.iterations_for(consumed + size), iteration + 1);
      consumed += size;
    }
    EXPECT_EQ(ramp.batch_size(consumed), ramp.full()) << "the ramp was to end within the test";
  }
}

TEST(BatchRamp, WithoutOneTheBatchIsFull) {
  const BatchRamp ramp = BatchRamp::parse("", 24);
  EXPECT_EQ(ramp.at(0), (BatchPosition{0, 24}));
  EXPECT_EQ(ramp.at(3), (BatchPosition{72, 24}));
}

TEST(BatchRamp, LargeRunsDoNotOverflow) {
  const BatchRamp ramp(1 << 20, 1 << 10, 1 << 10, int64_t{1} << 50);
  EXPECT_EQ(ramp.batch_size(int64_t{1} << 49), (1 << 10) + (1 << 10) * (1023 / 2));
}

TEST(BatchRamp, RefusesWhatDoesNotDivide) {
  const auto refusal = [](const std::string& text, int64_t full) {
    return error_of([&] { BatchRamp::parse(text, full); });
  };
  EXPECT_THAT(refusal("4,5,60", 16), AllOf(HasSubstr("16 - 4 = 12"), HasSubstr("increment 5")));
  EXPECT_THAT(refusal("32,4,60", 16), HasSubstr("between 1 and global_batch_size"));
  EXPECT_THAT(refusal("0,4,60", 16), HasSubstr("between 1 and global_batch_size"));
  EXPECT_THAT(refusal("4,0,60", 16), HasSubstr("at least 1"));
  EXPECT_THAT(refusal("4,4,-1", 16), HasSubstr("negative"));
  EXPECT_THAT(refusal("4,4,2", 16), HasSubstr("3 increments"));
  for (const char* text : {"4", "4,4", "4,4,60,1", "4 4 60", "4,4,", "a,b,c"}) {
    EXPECT_THAT(refusal(text, 16), HasSubstr("START,INCREMENT,SAMPLES")) << text;
  }
  BatchRamp(16, 4, 4, 60).check_divides(2, 2);
  EXPECT_THAT(error_of([] { BatchRamp(16, 4, 4, 60).check_divides(2, 4); }),
              AllOf(HasSubstr("first batch 4"), HasSubstr("2 * 4 = 8")));
  EXPECT_THAT(error_of([] { BatchRamp(16, 8, 4, 60).check_divides(2, 4); }), HasSubstr("increment 4"));
}

}  // namespace
}  // namespace farskip
