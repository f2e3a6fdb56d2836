#pragma once
// Ranks as threads of one process. No thread of its own and no spinning: whoever awaits a collective first moves (or
// adds) the rows of all ranks that have not done so themselves, so a rank that comes late finds its result complete.
// Tensors of a device (one, shared by all ranks) are moved on one communication stream per rank; an await then waits on
// the host for its peers' launches only, and makes the current stream wait for the rest.

#include <functional>

#include "transport/transport.h"

namespace farskip {

/// `num_ranks` worlds that share one memory; a failure of one rank is seen by all communicators.
Worlds make_loopback(int num_ranks, const TransportOptions& options = {});

/// Runs body(world) on one thread per world and joins them. The first exception aborts the other ranks' collectives and
/// is rethrown. Intra-op threads are divided among the ranks meanwhile (at least one each).
void run_ranks(Worlds& worlds, const std::function<void(World&)>& body);

/// The same over a fresh loopback.
void run_ranks(int num_ranks, const std::function<void(World&)>& body, const TransportOptions& options = {});

}  // namespace farskip
