// farskip version: what a bug report needs.

#include <cstdio>

#include "cli/command.h"

namespace farskip::cli {

std::string version_text() {
  std::string text = "farskip " FARSKIP_VERSION "\n";
#ifdef FARSKIP_TORCH
  return text + torch_version_text();
#else
  return text + "without libtorch: graphs, schedules and simulation only";
#endif
}

void add_version(CLI::App& app) {
  CLI::App* command = app.add_subcommand("version", "Print the versions of farskip and libtorch, and the devices");
  command->callback([] { std::printf("%s\n", version_text().c_str()); });
}

}  // namespace farskip::cli
