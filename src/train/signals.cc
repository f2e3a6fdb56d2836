#include "train/signals.h"

#include <csignal>

namespace farskip {
namespace {

// A signal handler can reach nothing but objects of static storage.
volatile std::sig_atomic_t num_save = 0;
volatile std::sig_atomic_t num_end = 0;

void on_signal(int signal) {
  if (signal == SIGUSR1) {
    num_save = num_save + 1;
  } else {
    num_end = num_end + 1;
    std::signal(SIGTERM, SIG_DFL);
  }
}

}  // namespace

void watch_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

SignalCounts signals_received() { return {num_save, num_end}; }

}  // namespace farskip
