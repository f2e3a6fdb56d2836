// The program: finds the subcommand, runs it, and turns what it throws into a message and an exit status (command.h).

#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/command.h"
#include "cli/reference.h"
#include "config/nearest_name.h"

namespace farskip::cli {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

/// In the order of --help.
constexpr void (*kCommands[])(CLI::App&) = {
    add_prepare, add_tokenizer, add_show,
#ifdef FARSKIP_TORCH
    add_inspect, add_convert,   add_train, add_distill,  add_bench,
    add_compare, add_eval,      add_serve, add_generate, add_verify,
#endif
    add_version,
};

void print_error(const std::string& text) { std::fprintf(stderr, "farskip: error: %s\n", text.c_str()); }

/// The innermost subcommand that was named on the command line.
const CLI::App& named_command(const CLI::App& app) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().back();
  return *command;
}

/// The names that could have stood where `word` stands: options, or subcommands.
std::vector<std::string> possible_names(const CLI::App& command, const std::string& word) {
  std::vector<std::string> names;
  if (word.starts_with('-')) {
    for (const CLI::Option* option : command.get_options()) {
      for (const auto& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else {
    for (const CLI::App* subcommand : command.get_subcommands(nullptr)) names.push_back(subcommand->get_name());
  }
  return names;
}

/// The parser's own text, but a word it could not place is told apart from one that is missing.
std::string usage_text(const CLI::App& app, const CLI::ParseError& error) {
  const auto unplaced = app.remaining(true);
  const auto code = static_cast<CLI::ExitCodes>(error.get_exit_code());
  if (unplaced.empty() || (code != CLI::ExitCodes::ExtrasError && code != CLI::ExitCodes::RequiredError)) {
    return error.what();
  }
  const std::string& word = unplaced.front();
  const std::string nearest = nearest_name(word, possible_names(named_command(app), word));
  const char* what = word.starts_with('-') ? "option" : app.get_subcommands().empty() ? "subcommand" : "argument";
  return fmt::format("unknown {} {}{}", what, word, nearest.empty() ? "" : "; did you mean " + nearest + "?");
}

int usage_error(const CLI::App& app, const CLI::ParseError& error) {
  print_error(usage_text(app, error));
  std::fprintf(stderr, "\n%s", app.help().c_str());  // of the innermost subcommand
  return kUsage;
}

int run(int argc, const char* const* argv) {
  CLI::App app("Trains and runs mixture-of-experts models whose communication hides behind computation.", "farskip");
  app.get_formatter()->column_width(36);
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text, "Print the versions of farskip and libtorch, and the devices");
  app.add_flag_callback(
      "--help-commands",
      [&app] {
        std::printf("%s", commands_markdown(app).c_str());
        throw CLI::RuntimeError(0);
      },
      "Print the reference of all subcommands, as Markdown");
  for (auto* add_command : kCommands) add_command(app);
  app.footer("`farskip SUBCOMMAND --help` tells about one of them. Exit status: 0 done, 1 failed, 2 wrong usage.");

  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& success) {  // --help and --version
    return app.exit(success);
  } catch (const CLI::RuntimeError& status) {
    return status.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error);
  } catch (const Error& error) {
    print_error(error.what());
  } catch (const std::bad_alloc&) {
    print_error("out of memory; choose a smaller model, batch or sequence");
  } catch (const std::exception& error) {
    const std::string text = error.what();
    print_error(text.substr(0, text.find("\nException raised from")));  // there libtorch begins its stack
    std::fprintf(stderr,
                 "This error was not foreseen: it may be a bug of farskip. Please report it with the command and "
                 "`farskip version`.\n");
  }
  return kFailed;
}

}  // namespace
}  // namespace farskip::cli

int main(int argc, char** argv) { return farskip::cli::run(argc, argv); }
