#include "serve/stop_signal.h"

#include <signal.h>
#include <time.h>

#include <csignal>

namespace farskip::serve {
namespace {

// A signal handler can reach nothing but objects of static storage.
volatile std::sig_atomic_t requested = 0;
volatile std::sig_atomic_t second_of_request = 0;

std::sig_atomic_t seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::sig_atomic_t>(now.tv_sec & 0x3fffffff);
}

void on_signal(int signal) {
  if (requested == 0) {
    second_of_request = seconds();
    requested = 1;
  } else if (seconds() - second_of_request > 1) {
    ::signal(signal, SIG_DFL);
    raise(signal);
  }
}

}  // namespace

void watch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

bool stop_requested() { return requested != 0; }

}  // namespace farskip::serve
