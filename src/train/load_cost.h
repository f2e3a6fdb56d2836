#pragma once
// What it cost to load weights, over all ranks.

#include <string>

#include "model/checkpoint.h"
#include "transport/transport.h"

namespace farskip {

/// Called by all ranks, each with its own report; rank 0 logs what was read, how long that took and the peak resident
/// memory of a process, its own and the most of any rank.
void log_load_cost(const std::string& folder, const LoadReport& report, Transport& world);

}  // namespace farskip
