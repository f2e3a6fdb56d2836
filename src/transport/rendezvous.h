#pragma once
// Who am I among how many, and where do we meet: from the variables of torchrun, mpirun, srun or our own launcher.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace farskip {

struct LaunchInfo {
  int rank = 0;
  int size = 1;
  int local_rank = 0;              ///< among the ranks of this machine
  int local_size = 1;              ///< number of ranks of this machine
  std::string host = "127.0.0.1";  ///< where the store listens
  uint16_t port = 29500;
  bool hosts_store = true;        ///< rank 0 opens the store itself (false: the launcher did, as torchrun's agent)
  std::string source = "single";  ///< "torchrun", "mpirun", "srun", or "single"
};

/// Reads the launcher's variables through `get` (nullptr for unset ones). Incomplete or impossible values throw Error
/// that names the variable. Without any launcher: one rank.
LaunchInfo detect_launch(const std::function<const char*(const char*)>& get);
/// From the environment of this process.
LaunchInfo detect_launch();

/// The first host of a Slurm node list, e.g. "node[003-007,9],gpu1" -> "node003".
std::string first_host(const std::string& node_list);

/// A TCP port of this machine that was free a moment ago.
uint16_t free_port();

}  // namespace farskip
