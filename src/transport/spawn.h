#pragma once
// Our own launcher: N ranks on this machine.

#include <string>
#include <vector>

namespace farskip {

struct SpawnOptions {
  double grace_s = 5;  ///< after the first failure the others may end by themselves (and say why) for so long
  /// The same where a signal ended the first one: it could not tell the others, who must find out. At least the timeout
  /// of collectives and 2 s.
  double silent_grace_s = 5;
  /// The same after SIGINT, SIGTERM or SIGHUP was passed on: ranks may have something to save.
  double signal_grace_s = 60;
  double kill_s = 2;            ///< then SIGTERM, and after this SIGKILL
  bool ends_by_signal = false;  ///< all succeeded after a signal was passed on: 0, not 128 + signal
};

/// Runs `num_ranks` copies of argv (argv[0]: path of the program) with torchrun's variables (RANK, WORLD_SIZE,
/// LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT) and waits for them. SIGINT, SIGTERM, SIGHUP and
/// SIGUSR1 are passed on.
/// Returns 0 when all succeeded; otherwise writes to standard error which rank ended first and how, and returns its
/// status (128 + signal). REQUIRES: called before this process starts threads that use the terminal or signals.
int spawn_ranks(int num_ranks, const std::vector<std::string>& argv, const SpawnOptions& options = {});

}  // namespace farskip
