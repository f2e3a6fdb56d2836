#pragma once
// The subcommands of the program. Each is one file, cli/NAME.cc, or cli/torch_NAME.cc where it needs libtorch (those
// are left out of a build of the core alone), and defines one function that adds it to the program:
//
//   void add_show(CLI::App& app) {
//     auto options = std::make_shared<ShowOptions>();
//     CLI::App* command = app.add_subcommand("show", "Print and draw a model's stages and their order");
//     command->add_option("model", options->model, "...")->required();
//     command->callback([options] { show(*options); });
//   }
//
// A new subcommand needs a line here and a line in main.cc. How a callback ends the program:
//   returns                      exit status 0
//   throws farskip::Error        "farskip: error: TEXT", exit status 1
//   throws CLI::RuntimeError(N)  exit status N without a message: the command has said what there is to say
//   throws CLI::ValidationError  a usage error: message and help of the subcommand, exit status 2

#include <CLI/CLI.hpp>

#include <cstdio>
#include <string>
#include <string_view>

namespace farskip::cli {

void add_prepare(CLI::App& app);
void add_tokenizer(CLI::App& app);
void add_convert(CLI::App& app);
void add_inspect(CLI::App& app);
void add_train(CLI::App& app);
void add_distill(CLI::App& app);
void add_bench(CLI::App& app);
void add_compare(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_serve(CLI::App& app);
void add_verify(CLI::App& app);
void add_show(CLI::App& app);
void add_version(CLI::App& app);

/// To standard output, without delay.
inline void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

/// What --version prints: the program's version, libtorch's, and the devices it can use; several lines.
std::string version_text();
/// The lines about libtorch and devices; only in builds with it.
std::string torch_version_text();

}  // namespace farskip::cli
