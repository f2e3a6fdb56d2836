#include "tests/cli/run_program.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace farskip::testing {
namespace {

std::string read_and_remove(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  std::filesystem::remove(path);
  return text.str();
}

}  // namespace

ProgramResult run_farskip(const std::string& arguments, const std::string& input) {
  const std::string base = ::testing::TempDir() + "farskip_cli_" + std::to_string(getpid());
  const std::string command =
      "'" FARSKIP_BINARY_DIR "/farskip' " + arguments + " <'" + input + "' >'" + base + ".out' 2>'" + base + ".err'";
  const int status = std::system(command.c_str());
  ProgramResult result;
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = read_and_remove(base + ".out");
  result.err = read_and_remove(base + ".err");
  return result;
}

bool with_libtorch() { return run_farskip("version").out.find("without libtorch") == std::string::npos; }

}  // namespace farskip::testing
