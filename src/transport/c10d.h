#pragma once
// Communicators over libtorch's process groups: Gloo on CPUs, NCCL (or RCCL) on devices, through one code path.

#include <memory>

#include "transport/rendezvous.h"
#include "transport/transport.h"

namespace farskip {

/// True when this libtorch and machine can run `backend` ("gloo", "nccl").
bool c10d_available(const std::string& backend);

/// This process's world. Rank 0 hosts the store at info.host:info.port. Throws Error naming the ranks that did not
/// come. REQUIRES: one world per process.
std::unique_ptr<World> make_c10d(const LaunchInfo& info, const TransportOptions& options = {},
                                 const std::string& backend = "gloo");

/// Ranks as threads of one process, each with its own Gloo groups (TCP over the loopback interface).
Worlds make_gloo_threads(int num_ranks, const TransportOptions& options = {});

}  // namespace farskip
