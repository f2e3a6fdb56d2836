#pragma once
// The queued transport without a network: ranks are threads that stand for processes, each with its own health and
// monitor, and all that passes between them is an exchange of bytes and a store of heartbeats, in memory.

#include "transport/transport.h"

namespace farskip::testing {

Worlds make_memory_worlds(int num_ranks, const TransportOptions& options = {});

/// The same tests run on "loopback" and on "queued".
Worlds make_worlds(const std::string& kind, int num_ranks, const TransportOptions& options = {});

}  // namespace farskip::testing
