#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace farskip {
namespace {

thread_local int log_rank = -1;

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made = std::make_shared<spdlog::logger>("farskip", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%H:%M:%S %^%l%$ %v");
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void log(LogLevel level, const std::string& text) {
  if (log_rank >= 0) {
    logger().log(to_spdlog(level), "[rank {}] {}", log_rank, text);
  } else {
    logger().log(to_spdlog(level), "{}", text);
  }
}

void set_log_level(LogLevel level) { logger().set_level(to_spdlog(level)); }
void set_log_rank(int rank) { log_rank = rank; }

}  // namespace farskip
