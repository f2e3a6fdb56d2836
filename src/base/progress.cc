#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <utility>

namespace farskip {
namespace {
constexpr double kRedrawEvery = 0.2;
}

std::string format_bytes(int64_t num_bytes) {
  if (num_bytes < 0) return "unknown";
  if (num_bytes < 1024) return fmt::format("{} B", num_bytes);
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(num_bytes) / 1024.0;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Progress::Progress(ProgressOptions options) : options_(std::move(options)) {
  start_ = options_.clock();
  next_ = start_ + options_.first_after;
  terminal_ = options_.out != nullptr && ::isatty(::fileno(options_.out)) != 0;
}

Progress::~Progress() {
  if (drawn_ && terminal_) {
    std::fputs("\r\033[K", options_.out);
    std::fflush(options_.out);
  }
}

std::string Progress::line(int64_t done) const {
  const double elapsed = options_.clock() - start_;
  const double rate = elapsed > 0 ? static_cast<double>(done) / elapsed : 0.0;
  const auto amount = [&](int64_t number) {
    return options_.unit.empty() ? format_bytes(number) : fmt::format("{} {}", number, options_.unit);
  };
  std::string text = options_.what + ": " + amount(done);
  if (options_.total > 0) {
    text += fmt::format(" of {} ({:.0f} %)", amount(options_.total),
                        std::floor(100.0 * static_cast<double>(done) / static_cast<double>(options_.total)));
  }
  if (rate > 0) {
    const bool few = !options_.unit.empty() && rate < 10;
    text += few ? fmt::format(", {:.2g} {}/s", rate, options_.unit)
                : fmt::format(", {}/s", amount(static_cast<int64_t>(rate)));
    if (options_.total >= done) {
      text += fmt::format(", {} left", format_duration(static_cast<double>(options_.total - done) / rate));
    }
  }
  return text;
}

void Progress::update(int64_t done) {
  if (options_.out == nullptr) return;
  const double now = options_.clock();
  if (now < next_) return;
  next_ = now + (terminal_ ? kRedrawEvery : options_.plain_every);
  drawn_ = true;
  if (terminal_) {
    std::fputs(fmt::format("\r\033[K{}", line(done)).c_str(), options_.out);
  } else {
    std::fputs((line(done) + "\n").c_str(), options_.out);
  }
  std::fflush(options_.out);
}

}  // namespace farskip
