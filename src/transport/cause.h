#pragma once
// What an exception from below says to people.

#include <c10/util/Exception.h>

#include <exception>
#include <string>

namespace farskip {

/// The text of an error, without the stack trace that libtorch appends to its own.
inline std::string text_of(const std::exception& error) {
  const auto* of_libtorch = dynamic_cast<const c10::Error*>(&error);
  return of_libtorch != nullptr ? of_libtorch->what_without_backtrace() : error.what();
}

/// Its first line, to be quoted inside another message.
inline std::string first_line(const std::exception& error) {
  const auto text = text_of(error);
  return text.substr(0, text.find('\n'));
}

}  // namespace farskip
