#pragma once
// Runs build/farskip with a line of arguments and keeps what it printed.

#include <string>

namespace farskip::testing {

struct ProgramResult {
  int status = -1;  ///< exit status; 128 + signal where one ended it
  std::string out;  ///< standard output
  std::string err;  ///< standard error
};

/// `arguments` as a shell would read them; standard input from a file.
ProgramResult run_farskip(const std::string& arguments, const std::string& input = "/dev/null");

/// Whether the program was built with libtorch; without, it has few commands.
bool with_libtorch();

}  // namespace farskip::testing
