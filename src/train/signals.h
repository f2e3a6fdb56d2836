#pragma once
// Signals that ask a run for a checkpoint: SIGUSR1 to save and go on, SIGTERM to save and end.

namespace farskip {

/// Watches SIGUSR1 and SIGTERM of this process from now on. A second SIGTERM ends the process at once.
void watch_signals();

/// How often each was received since the program began: counts, since several ranks may be threads of one process, and
/// each must see a request.
struct SignalCounts {
  int save = 0;
  int end = 0;
};
SignalCounts signals_received();

}  // namespace farskip
