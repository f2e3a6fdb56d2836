#pragma once
// Texts of all ranks.

#include <string>
#include <vector>

#include "transport/transport.h"

namespace farskip {

/// Of each rank its text, which may be empty, on every rank.
std::vector<std::string> gather_texts(Transport& transport, const std::string& own);

}  // namespace farskip
