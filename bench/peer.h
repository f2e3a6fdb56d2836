#pragma once
// The program that a benchmark compares with, run as a child that answers one line for each line it is sent.

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"

namespace farskip {

class Peer {
 public:
  /// Starts `command` with `python_path` as its PYTHONPATH (empty: none). Throws Error where no pipe can be had.
  Peer(std::vector<std::string> command, const std::string& python_path) {
    int to_child[2], from_child[2];
    // Closed on exec: a peer that held its sister's pipe would keep her from seeing the end of her input.
    if (pipe2(to_child, O_CLOEXEC) != 0 || pipe2(from_child, O_CLOEXEC) != 0) fail("no pipe to {}", command[0]);
    std::signal(SIGPIPE, SIG_IGN);  // a peer that has died is told by its silence
    child_ = fork();
    if (child_ == 0) {
      dup2(to_child[0], STDIN_FILENO);
      dup2(from_child[1], STDOUT_FILENO);
      if (!python_path.empty()) setenv("PYTHONPATH", python_path.c_str(), 1);
      std::vector<char*> arguments;
      for (std::string& argument : command) arguments.push_back(argument.data());
      arguments.push_back(nullptr);
      execvp(arguments[0], arguments.data());
      std::fprintf(stderr, "%s cannot be started\n", arguments[0]);
      _exit(127);
    }
    close(to_child[0]);
    close(from_child[1]);
    in_ = fdopen(to_child[1], "w");
    out_ = fdopen(from_child[0], "r");
  }
  ~Peer() {
    std::fclose(in_);  // the end of its input ends it
    std::fclose(out_);
    waitpid(child_, nullptr, 0);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void send(const std::string& line) {
    std::fprintf(in_, "%s\n", line.c_str());
    std::fflush(in_);
  }
  /// Its next line; false where it has ended.
  bool receive(std::string& line) {
    line.clear();
    for (int c = std::fgetc(out_); c != EOF; c = std::fgetc(out_)) {
      if (c == '\n') return true;
      line += static_cast<char>(c);
    }
    return false;
  }

 private:
  pid_t child_ = -1;
  std::FILE* in_ = nullptr;
  std::FILE* out_ = nullptr;
};

}  // namespace farskip
