// The program as a user meets it: help, versions, exit statuses.

#include "tests/cli/run_program.h"

#include <gtest/gtest.h>

#include <sstream>
#include <vector>

#include "base/files.h"

namespace farskip {
namespace {

using testing::run_farskip;

/// The names under "Subcommands:" of --help.
std::vector<std::string> subcommands() {
  std::istringstream help(run_farskip("--help").out);
  std::vector<std::string> names;
  bool listing = false;
  for (std::string line; std::getline(help, line);) {
    if (line == "Subcommands:") {
      listing = true;
    } else if (listing && line.rfind("  ", 0) == 0 && line[2] != ' ') {
      names.push_back(line.substr(2, line.find(' ', 2) - 2));
    } else if (line.empty()) {
      listing = false;
    }
  }
  return names;
}

TEST(Program, VersionNamesFarskipAndLibtorch) {
  const auto result = run_farskip("--version");
  EXPECT_EQ(result.status, 0);
  EXPECT_NE(result.out.find("farskip " FARSKIP_VERSION), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("libtorch"), std::string::npos) << result.out;
  EXPECT_EQ(run_farskip("version").out, result.out);
}

TEST(Program, HelpListsSubcommandsAndEachHasItsOwn) {
  const auto names = subcommands();
  ASSERT_FALSE(names.empty()) << run_farskip("--help").out;
  for (const auto& name : names) {
    const auto result = run_farskip(name + " --help");
    EXPECT_EQ(result.status, 0) << name;
    EXPECT_NE(result.out.find("Usage: farskip " + name), std::string::npos) << result.out;
    EXPECT_EQ(result.err, "") << name;
  }
}

TEST(Program, HelpFitsATerminal) {
  for (const auto& name : subcommands()) {
    std::istringstream help(run_farskip(name + " --help").out);
    for (std::string line; std::getline(help, line);) EXPECT_LE(line.size(), 120u) << name << ": " << line;
  }
}

/// Whole in a build with libtorch; in one without, each section is the file's.
TEST(Program, ReferenceOfTheCommandsIsWhatTheyDeclare) {
  const auto printed = run_farskip("--help-commands");
  EXPECT_EQ(printed.status, 0) << printed.err;
  const std::string page = read_file(FARSKIP_SOURCE_DIR "/docs/commands.md");
  const char* cure = "docs/commands.md is generated: write what `farskip --help-commands` prints to it again";
  if (testing::with_libtorch()) {
    EXPECT_EQ(page, printed.out) << cure;
  }
  size_t num_sections = 0;
  for (size_t begin = printed.out.find("\n## "), end; begin != std::string::npos; begin = end, ++num_sections) {
    end = printed.out.find("\n## ", begin + 1);
    const std::string section = printed.out.substr(begin, end - begin);
    EXPECT_NE(page.find(section), std::string::npos) << cure << section;
  }
  EXPECT_GE(num_sections, 6u);
  for (const auto& name : subcommands()) EXPECT_NE(printed.out.find("\n## farskip " + name), std::string::npos) << name;
}

TEST(Program, NoSubcommandIsAUsageErrorWithHelp) {
  const auto result = run_farskip("");
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err.rfind("farskip: error: ", 0), 0u) << result.err;
  EXPECT_NE(result.err.find("Usage: farskip"), std::string::npos) << result.err;
}

TEST(Program, UnknownSubcommandNamesTheNearest) {
  const auto result = run_farskip("versoin");
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("unknown subcommand versoin; did you mean version?"), std::string::npos) << result.err;
  EXPECT_EQ(run_farskip("quite_another").err.find("did you mean"), std::string::npos);
}

TEST(Program, UnknownOptionShowsTheHelpOfItsSubcommand) {
  const auto result = run_farskip("version --hepl");
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("unknown option --hepl; did you mean --help?"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("Usage: farskip version"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace farskip
