#pragma once
// build/farskip in the background, for tests of launches and failures.

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace farskip::testing {

class RunningProgram {
 public:
  using Environment = std::vector<std::pair<std::string, std::string>>;

  /// Starts `build/farskip ARGUMENTS` (as a shell reads them) with more variables; its output goes to OUTPUT.out and
  /// OUTPUT.err.
  RunningProgram(const std::string& arguments, const std::string& output, const Environment& environment = {});
  /// Ends it if it still runs.
  ~RunningProgram();
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;

  pid_t pid() const { return pid_; }
  /// Processes that it started and that have not been waited for, in the order of their ids.
  std::vector<pid_t> children() const;
  void send(int signal) const;

  /// The exit status (128 + signal where one ended it); nothing if it still runs after so many seconds.
  std::optional<int> wait(double seconds);
  std::string out() const;
  std::string err() const;

 private:
  std::string output_;
  pid_t pid_ = -1;
  std::optional<int> status_;
};

void sleep_ms(double milliseconds);

/// Asks every millisecond; false if the condition does not come true within so many seconds.
template <typename Condition>
bool wait_until(double seconds, Condition&& condition) {
  for (double waited = 0; waited < seconds; waited += 1e-3) {
    if (condition()) return true;
    sleep_ms(1);
  }
  return false;
}

}  // namespace farskip::testing
