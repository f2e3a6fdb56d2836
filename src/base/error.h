#pragma once
// Errors meant for people: they name the thing, give both numbers and the cure. A broken invariant is a bug and stops
// at once.

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace farskip {

/// An error a user can do something about. The command line prints its text and exits with status 1.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what) : std::runtime_error(what) {}
};

/// Throws Error with a formatted message, e.g. fail("{}: {} heads cannot be divided by tp={}; choose a divisor", ...).
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Prints the expression and its place, then aborts.
[[noreturn]] void broken_invariant(const char* expression, const char* file, int line, const std::string& detail);

}  // namespace farskip

/// An invariant of the program itself (never of its input).
#define FARSKIP_CHECK(condition, ...)                                                                        \
  do {                                                                                                       \
    if (!(condition)) ::farskip::broken_invariant(#condition, __FILE__, __LINE__, std::string{__VA_ARGS__}); \
  } while (false)
