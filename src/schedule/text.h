#pragma once
// The text form of a schedule: one operation a line ("run mb0.l0.fwd.qkv", "launch ...", "await ..."), # comments.

#include <string>

#include "schedule/schedule.h"

namespace farskip {

std::string to_text(const StageGraph& graph, const Schedule& schedule);

/// Parses the text form against a graph. Throws Error naming `source`, the line and what is wrong with it. The result
/// is not validated.
Schedule schedule_from_text(const StageGraph& graph, const std::string& text, const std::string& source);

}  // namespace farskip
