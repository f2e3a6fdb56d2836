#pragma once
// Progress of a long operation: how far, how fast, how long still. One line that rewrites itself on a terminal, plain
// lines at growing distances elsewhere, nothing at all for an operation that ends at once.

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

namespace farskip {

/// "4.1 MiB", "512 B"; "unknown" below 0.
std::string format_bytes(int64_t num_bytes);
/// "850 ms", "12.3 s", "4 min 05 s", "2 h 03 min".
std::string format_duration(double seconds);

/// Seconds on a clock that never goes back.
double monotonic_seconds();

struct ProgressOptions {
  std::string what;           ///< "data/kjv.txt", the first words of the line
  int64_t total = -1;         ///< bytes; -1 where the end is not known (a pipe)
  std::string unit = "";      ///< what is counted instead of bytes: "tokens"
  std::FILE* out = stderr;    ///< nullptr: silent
  double first_after = 0.5;   ///< seconds before the first line
  double plain_every = 10.0;  ///< seconds between lines where `out` is not a terminal
  std::function<double()> clock = monotonic_seconds;
};

class Progress {
 public:
  explicit Progress(ProgressOptions options);
  /// Erases an unfinished line of a terminal.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done`: bytes (or units) so far. Cheap enough to be called for every document.
  void update(int64_t done);
  /// The line as it would be printed now: "kjv.txt: 2.0 MiB of 4.1 MiB (49 %), 1.1 MiB/s, 1.9 s left".
  std::string line(int64_t done) const;

 private:
  ProgressOptions options_;
  double start_ = 0.0;
  double next_ = 0.0;
  bool terminal_ = false;
  bool drawn_ = false;
};

}  // namespace farskip
