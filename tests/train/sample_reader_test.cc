#include "train/sample_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "base/error.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

/// Step i is one microbatch of one sample {i}. Keeps who read what.
struct Steps {
  std::mutex mutex;
  std::set<int64_t> read;
  std::set<std::thread::id> threads;

  SampleReader::Read function() {
    return [this](int64_t i) {
      if (i == 7) fail("step {} has no samples", i);
      const std::lock_guard lock(mutex);
      read.insert(i);
      threads.insert(std::this_thread::get_id());
      return StepSamples{{TrainSample({static_cast<int32_t>(i)})}};
    };
  }
  bool has_read(int64_t i) {
    const std::lock_guard lock(mutex);
    return read.count(i) > 0;
  }
};

int32_t token(const StepSamples& samples) { return samples.at(0).at(0).tokens.at(0); }

TEST(SampleReader, ReadsAheadOnAThreadOfItsOwn) {
  Steps steps;
  SampleReader reader(steps.function(), 100, 3);
  EXPECT_EQ(token(reader.next(10)), 10);
  while (!steps.has_read(13)) std::this_thread::yield();
  EXPECT_EQ(steps.threads.count(std::this_thread::get_id()), 0u);
  EXPECT_FALSE(steps.has_read(14)) << "no further than three steps";
  for (int64_t i = 11; i < 20; ++i) EXPECT_EQ(token(reader.next(i)), i);
}

TEST(SampleReader, GoesToAnyStep) {
  Steps steps;
  SampleReader reader(steps.function(), 100, 2);
  for (const int64_t i : {20, 21, 40, 41, 20, 20, 99, 100, 101}) EXPECT_EQ(token(reader.next(i)), i);
  SampleReader moved = std::move(reader);
  EXPECT_EQ(token(moved.next(22)), 22);
  EXPECT_FALSE(steps.has_read(102)) << "nothing is read ahead behind the last step";
}

TEST(SampleReader, TellsErrorsAtTheirStep) {
  for (const int64_t ahead : {0, 4}) {
    Steps steps;
    SampleReader reader(steps.function(), 100, ahead);
    for (int64_t i = 4; i < 7; ++i) EXPECT_EQ(token(reader.next(i)), i);
    for (int attempt = 0; attempt < 2; ++attempt) {
      try {
        reader.next(7);
        ADD_FAILURE() << "ahead " << ahead;
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("step 7 has no samples"));
      }
    }
    EXPECT_EQ(token(reader.next(8)), 8);
  }
}

TEST(SampleReader, WithoutReadingAheadTheCallerReads) {
  Steps steps;
  SampleReader reader(steps.function(), 100, 0);
  EXPECT_EQ(token(reader.next(1)), 1);
  EXPECT_EQ(steps.threads, std::set<std::thread::id>{std::this_thread::get_id()});
  EXPECT_EQ(steps.read, std::set<int64_t>{1});
}

}  // namespace
}  // namespace farskip
