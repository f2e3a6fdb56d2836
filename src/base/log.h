#pragma once
// Log lines for people. spdlog stands behind this in one source file, because its fmt and the one of libtorch's wheel
// cannot be seen by the same file.

#include <string>

namespace farskip {

enum class LogLevel { debug, info, warning, error };

/// Writes one line to standard error, with the time and, when there are several ranks, the rank. Thread-safe.
void log(LogLevel level, const std::string& text);
inline void log_info(const std::string& text) { log(LogLevel::info, text); }
inline void log_warning(const std::string& text) { log(LogLevel::warning, text); }

/// Lines below this level are dropped.
void set_log_level(LogLevel level);
/// Prefixes every line of this thread with "[rank R]"; a negative rank removes the prefix.
void set_log_rank(int rank);

}  // namespace farskip
