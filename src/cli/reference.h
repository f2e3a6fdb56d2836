#pragma once
// The reference of all subcommands, docs/commands.md, from their declarations.

#include <CLI/CLI.hpp>

#include <string>

namespace farskip::cli {

/// Markdown: a section for each subcommand that runs something, with its arguments and options in the order of their
/// declaration. A build of the core alone has fewer sections; those it has are the same.
std::string commands_markdown(const CLI::App& app);

}  // namespace farskip::cli
