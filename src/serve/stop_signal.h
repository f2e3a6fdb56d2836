#pragma once
// SIGTERM and SIGINT ask a server to end.

namespace farskip::serve {

/// Watches both from now on. Whoever sends another one a second later or more ends the process at once (a terminal and
/// a launcher may both send the first).
void watch_stop_signals();
bool stop_requested();

}  // namespace farskip::serve
