// Threads that move bytes are real-time where that is allowed, and nothing else is.

#include "transport/io_priority.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <thread>

namespace farskip {
namespace {

int policy() {
  int policy = -1;
  sched_param parameters{};
  pthread_getschedparam(pthread_self(), &policy, &parameters);
  return policy;
}

TEST(RealTimeChildren, OnlyThreadsStartedMeanwhileAreRealTime) {
  const int before = policy();
  int child = -1, later = -1;
  bool permitted = false;
  {
    const RealTimeChildren real_time;
    permitted = real_time.permitted();
    std::thread([&] { child = policy(); }).join();
  }
  std::thread([&] { later = policy(); }).join();
  EXPECT_EQ(child, permitted ? SCHED_FIFO : before);
  EXPECT_EQ(policy(), before);
  EXPECT_EQ(later, before);
}

}  // namespace
}  // namespace farskip
