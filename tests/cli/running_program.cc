#include "tests/cli/running_program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/files.h"

namespace farskip::testing {

RunningProgram::RunningProgram(const std::string& arguments, const std::string& output, const Environment& environment)
    : output_(output) {
  const std::string command =
      "exec '" FARSKIP_BINARY_DIR "/farskip' " + arguments + " </dev/null >'" + output + ".out' 2>'" + output + ".err'";
  for (const char* end : {".out", ".err"}) std::ofstream(output + end);  // there before the program begins
  pid_ = fork();
  if (pid_ == 0) {
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  EXPECT_GT(pid_, 0) << "fork failed";
}

RunningProgram::~RunningProgram() {
  if (status_ || pid_ <= 0) return;
  send(SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::vector<pid_t> RunningProgram::children() const {
  const auto id = std::to_string(pid_);
  std::ifstream file("/proc/" + id + "/task/" + id + "/children");
  std::vector<pid_t> result;
  for (pid_t child = 0; file >> child;) result.push_back(child);
  return result;
}

void RunningProgram::send(int signal) const { EXPECT_EQ(kill(pid_, signal), 0); }

std::optional<int> RunningProgram::wait(double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!status_) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else if (std::chrono::steady_clock::now() > until) {
      break;
    } else {
      sleep_ms(10);
    }
  }
  return status_;
}

std::string RunningProgram::out() const { return read_file(output_ + ".out"); }
std::string RunningProgram::err() const { return read_file(output_ + ".err"); }

void sleep_ms(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

}  // namespace farskip::testing
