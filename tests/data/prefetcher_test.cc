#include "data/prefetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "data/batch_sampler.h"
#include "data/datasets.h"
#include "tests/base/temp_folder.h"
#include "tests/data/small_data.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void wait_until(const std::function<bool()>& condition) {
  for (int i = 0; i < 5000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(condition());
}

TEST(Prefetcher, GivesItemsInOrderFromAnyPosition) {
  Prefetcher<int64_t> prefetcher([](int64_t i) { return i * i; }, 5, 9, 3);
  EXPECT_EQ(prefetcher.position(), 5);
  std::vector<int64_t> items;
  for (int i = 0; i < 4; ++i) items.push_back(prefetcher.next());
  EXPECT_THAT(items, ElementsAre(25, 36, 49, 64));
  EXPECT_EQ(prefetcher.position(), 9);
}

TEST(Prefetcher, RunsAheadByItsCapacityAndNoFurther) {
  std::atomic<int> made = 0;
  Prefetcher<int> prefetcher([&](int64_t) { return ++made; }, 0, 100, 4);
  wait_until([&] { return prefetcher.num_ready() == 4; });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(made, 4);
  prefetcher.next();
  wait_until([&] { return made == 5; });
}

TEST(Prefetcher, ErrorsComeAtTheirPlaceAndStay) {
  Prefetcher<int64_t> prefetcher(
      [](int64_t i) {
        if (i == 2) fail("item {} is damaged", i);
        return i;
      },
      0, 10, 8);
  EXPECT_EQ(prefetcher.next(), 0);
  EXPECT_EQ(prefetcher.next(), 1);
  for (int i = 0; i < 2; ++i) EXPECT_THAT(error_of([&] { prefetcher.next(); }), HasSubstr("item 2 is damaged"));
  EXPECT_EQ(prefetcher.position(), 2);
}

TEST(Prefetcher, StopsWhileItWaitsWhileItWorksAndAfterAnError) {
  {
    Prefetcher<int64_t> full([](int64_t i) { return i; }, 0, 10, 1);
    wait_until([&] { return full.num_ready() == 1; });
  }
  std::atomic<bool> started = false;
  auto finished = std::make_shared<std::atomic<bool>>(false);
  {
    Prefetcher<int64_t> busy(
        [&](int64_t i) {
          started = true;
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          *finished = true;
          return i;
        },
        0, 10, 1);
    wait_until([&] { return started.load(); });
  }
  EXPECT_TRUE(*finished);
  Prefetcher<int64_t> failed([](int64_t) -> int64_t { throw std::runtime_error("at once"); }, 0, 10, 1);
}

TEST(Prefetcher, MoveOnlyItems) {
  Prefetcher<std::unique_ptr<int64_t>> prefetcher([](int64_t i) { return std::make_unique<int64_t>(i); }, 0, 2, 2);
  EXPECT_EQ(*prefetcher.next(), 0);
  EXPECT_EQ(*prefetcher.next(), 1);
}

// Microbatches of two ranks that share a data set, read ahead by two threads, dropped in the middle and taken up again.
TEST(Prefetcher, MicrobatchesAreThoseReadWithoutIt) {
  const TempFolder folder;
  write_numbered(folder / "a", std::vector<int64_t>(50, 20));
  write_numbered(folder / "b", std::vector<int64_t>(50, 10), 1000);
  DataOptions options;
  options.data_path = {"0.6", folder / "a", "0.4", folder / "b"};
  options.seq_length = 16;
  options.train.num_samples = 8 * 20;
  const auto train = open_datasets(options).train;
  const BatchSampler sampler(8, 2, 2);
  const auto reader = [&](int64_t rank) {
    return [&, rank](int64_t k) {
      std::vector<Sample> microbatch;
      for (const int64_t i : sampler.samples(k / sampler.num_microbatches(), k % sampler.num_microbatches(), rank)) {
        microbatch.push_back(train->sample(i));
      }
      return microbatch;
    };
  };
  int64_t resume_at = 0;
  for (const int64_t count : {7, 33}) {
    Prefetcher<std::vector<Sample>> first(reader(0), resume_at, 40, 3), second(reader(1), resume_at, 40, 5);
    for (int64_t k = resume_at; k < resume_at + count; ++k) {
      EXPECT_EQ(first.next(), reader(0)(k));
      EXPECT_EQ(second.next(), reader(1)(k));
    }
    resume_at = first.position();
  }
  EXPECT_EQ(resume_at, 40);
}

}  // namespace
}  // namespace farskip
