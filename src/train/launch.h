#pragma once
// From "how many ranks, over what" to one function call per rank.

#include <functional>
#include <memory>

#include "config/train_config.h"
#include "layer/layout.h"
#include "transport/emulated_link.h"
#include "transport/transport.h"

namespace farskip {

/// One rank of a run.
struct RankContext {
  World& world;
  std::shared_ptr<Link> link;  ///< the emulated link of this rank; never null, off where none was asked for
};

struct LaunchOptions {
  int num_ranks = 1;                                   ///< of our own launcher (--nproc)
  TransportKind transport = TransportKind::automatic;  ///< automatic: loopback, or c10d under a launcher
  LinkSpec link;
  double timeout_s = 300;
  bool ends_by_signal = false;  ///< SIGTERM and SIGINT are how it ends: then status 0, where all ranks succeeded
};

/// Transport, emulated link and timeout of a recipe.
LaunchOptions launch_options(const TrainConfig& config, int num_ranks);
/// auto | loopback | gloo | nccl; REQUIRES: one of them.
TransportKind transport_of(const std::string& name);

/// True in a process that torchrun, mpirun, srun or our own launcher started as one of several.
bool launched_as_rank();
/// Ranks of the run: the launcher's, else options.num_ranks.
int world_size(const LaunchOptions& options);

/// The layout `text`, or where that is empty `otherwise` of the number of ranks, which is set in `options`: the
/// launcher's, else `num_ranks`, else (0) the layout's. Throws Error where the layout is for another number.
Layout layout_of_ranks(const std::string& text, int num_ranks, LaunchOptions& options,
                       const std::function<Layout(int)>& otherwise);

/// Runs `body` once per rank: as threads of this process (loopback), as this process's rank under a launcher, or in
/// `num_ranks` copies of this process (its own command line again). Returns the exit status; throws what a rank of this
/// process threw.
int run_on_ranks(const LaunchOptions& options, const std::function<void(RankContext&)>& body);

}  // namespace farskip
