#include "transport/clock.h"

#include <sys/prctl.h>

#include <ctime>

namespace farskip {

double now_us() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

void sleep_until_us(double deadline_us) {
  // The kernel may wake a sleeper late by the thread's timer slack, 50 us by default: as long as a short collective.
  thread_local const int exact = prctl(PR_SET_TIMERSLACK, 1);
  static_cast<void>(exact);
  timespec until;
  until.tv_sec = static_cast<time_t>(deadline_us / 1e6);
  until.tv_nsec = static_cast<long>((deadline_us - static_cast<double>(until.tv_sec) * 1e6) * 1e3);
  while (now_us() < deadline_us) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
}

}  // namespace farskip
